"""The whole walk through the real parts: web server, Valkey, RQ worker, sweep and sandbox, all as processes."""

import requests

from tests.house import House, eventually
from tests.made import a_case, case_at, pledges_of
from tests.reader import Reader


def test_a_pledge_without_javascript_moves_the_total(house: House, reader: Reader) -> None:
    slug = a_case(target=600_000, pledged=[9_500]).slug
    assert "£95 pledged of £6,000 target from 1 pledge" in reader.open(f"/cases/{slug}").words
    reader.pledge(slug, "25", email="walk@example.org").save_card()
    assert "Your pledge of £25 counts" in reader.words
    assert "£120 pledged of £6,000 target from 2 pledges" in reader.open(f"/cases/{slug}").words
    letter = eventually(lambda: house.letters(to="walk@example.org"))[0]
    assert "Subject: Your £25 pledge counts" in letter
    link = next(line for line in letter.splitlines() if "/pledges/" in line)
    assert "Your pledge of £25 counts" in reader.open(link).words


def test_the_tab_is_closed_on_stripes_page_and_the_worker_alone_confirms(house: House, reader: Reader) -> None:
    slug = a_case().slug
    reader.pledge(slug, "25")
    requests.post(reader.address, {"card": "4242424242424242"}, allow_redirects=False, timeout=30)
    assert eventually(lambda: [p.status for p in pledges_of(slug)] == ["confirmed"])
    assert case_at(slug).round.pledged_pence == 2_500

"""What is said on a case page: a reader's comment and its moderator, an owner's update and its letters."""

from tests.house import House, eventually
from tests.journey import a_real_pledge, body, letters_about, on_card_page, told
from tests.made import PASSWORD, a_case, a_user
from tests.reader import Reader


def test_a_comment_is_nowhere_public_until_a_moderator_approves_it(house: House, reader: Reader) -> None:
    slug = a_case().slug
    judge = a_user("moderator").email
    words = "I would like to know what is kept about my daughter."
    reader.open(f"/cases/{slug}")
    assert "There are no public comments on this case page yet." in reader.words
    reader.press("Send comment", name="Hannah", email="hannah@example.org", body=words)
    assert "Your comment is not public yet." in reader.words and words in reader.words
    stranger, moderator = Reader(house.url), Reader(house.url)
    public = ("/", f"/cases/{slug}", f"/cases/{slug}/comments", f"/cases/{slug}/pledge-total", f"/cases/{slug}/pledge")
    assert [page for page in public if "daughter" in str(stranger.open(page).page)] == []
    moderator.log_in(judge, PASSWORD)
    assert moderator.address == f"{house.url}/moderation"
    item = next(item for item in moderator.page.select("article.item") if words in item.get_text())
    moderator.press("Approve", within=f"/comments/{str(item['id']).removeprefix('item-')}/decision")
    assert "Approved: the comment by Hannah is public." in moderator.words
    for page in (f"/cases/{slug}", f"/cases/{slug}/comments"):
        shown = stranger.open(page).words
        assert words in shown and "Hannah" in shown
        assert "There are no public comments" not in shown
        assert "hannah@example.org" not in str(stranger.page)
    # A decision can be turned round.
    moderator.open("/moderation/decided")
    item = next(item for item in moderator.page.select("article.item") if words in item.get_text())
    number = str(item["id"]).removeprefix("item-")
    moderator.press("Reject", within=f"/comments/{number}/decision",
                    **{f"c{number}-reason": "protected", f"c{number}-note": "Names a child."})  # fmt: skip
    assert [page for page in public if "daughter" in str(stranger.open(page).page)] == []
    assert "Names a child." not in str(stranger.page)


def test_an_update_goes_once_to_each_address_that_asked_and_stops_when_told(house: House, reader: Reader) -> None:
    owner = a_user("owner")
    slug = a_case(owner=owner).slug
    for email in ("uma@a.example.org", "Uma@a.example.org", "vic@b.example.org"):
        a_real_pledge(house, slug, 10, email=email, wants_updates=True)
    a_real_pledge(house, slug, 10, email="did-not-ask@c.example.org")
    on_card_page(house, slug, 10, email="never-counted@d.example.org", wants_updates=True)
    reader.log_in(owner.email, PASSWORD)
    assert reader.address == f"{house.url}/owner"
    _publish(reader, slug, "We have written", "Our letter went out **this morning**.", "2 supporters")
    shown = Reader(house.url).open(f"/cases/{slug}")
    assert "We have written" in shown.words
    assert [strong.get_text() for strong in shown.page.select(".update strong")] == ["this morning"]
    assert eventually(lambda: _updates(house) == {"a": ["We have written"], "b": ["We have written"]})
    # The link in the letter only shows a button: mail scanners follow links.
    (letter,) = [one for one in house.letters(to="@a.example.org") if "Subject: Update" in one]
    link = next(line for line in body(letter).splitlines() if line.endswith("/unsubscription"))
    assert f"List-Unsubscribe: <{link}>" in letter
    uma = Reader(house.url).open(link)
    assert "You will get no more updates" in uma.words
    _publish(reader, slug, "They have answered", "They decline.", "2 supporters")
    both = ["They have answered", "We have written"]
    assert eventually(lambda: _updates(house) == {"a": both, "b": both})
    uma.press("Stop the updates")
    assert "You get no more updates" in uma.words
    _publish(reader, slug, "We go to court", "In the spring.", "1 supporter")
    assert eventually(lambda: _updates(house) == {"a": both, "b": sorted([*both, "We go to court"])})
    told(house, "did-not-ask@c.example.org", "Your £10 pledge counts")


def _publish(owner: Reader, slug: str, title: str, text: str, goes_to: str) -> None:
    owner.open(f"/owner/cases/{slug}/updates/new")
    owner.press("Save, and look before it goes out", title=title, body=text)
    owner.press(f"Publish and send to {goes_to}")
    assert owner.address.partition("#")[0].endswith(f"/cases/{slug}")


def _updates(house: House) -> dict[str, list[str]]:
    """The titles of the updates that were sent to each of the test's four domains, sorted."""
    sent = {
        domain: [
            subject.removeprefix("Update: ")
            for subject in letters_about(house, f"@{domain}.example.org")
            if subject.startswith("Update: ")
        ]
        for domain in "abcd"
    }
    return {domain: titles for domain, titles in sent.items() if titles}

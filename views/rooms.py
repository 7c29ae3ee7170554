"""Every room of the site. Who imports this has all their pages, which a worker never needs."""

from flask import Blueprint

from views import (
    about,
    addresses,
    admissions,
    answers,
    comments,
    confirmations,
    dashboard,
    endings,
    feeds,
    own_details,
    people,
    policy_reports,
    private_page,
    promises,
    repairs,
    resets,
    reviews,
    second_factors,
    sharing,
    tried_cards,
    updates,
    users,
    workshop,
)
from views.accounts import accounts
from views.drafts import drafts
from views.moderators import moderators
from views.own_account import own_account
from views.owners import owners
from views.public import public
from views.staff import staff
from views.supporters import supporters
from views.webhooks import webhooks

# Each blueprint with its guard, and the rooms beside its own that add their pages to it.
ROOMS: dict[Blueprint, tuple[object, ...]] = {
    public: (comments, sharing, feeds, about, policy_reports),
    supporters: (private_page, addresses, repairs, confirmations),
    accounts: (admissions, resets, second_factors, own_details),
    own_account: (),
    moderators: (),
    owners: (workshop, dashboard, updates, answers, promises, endings, people),
    staff: (reviews, promises, users, tried_cards),
    drafts: (),
    webhooks: (),
}

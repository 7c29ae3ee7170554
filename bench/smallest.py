"""The smallest site that can be said to take a pledge with what Standing is made of, to measure ours against: see
bench/crowd.py."""

import os
import secrets
import threading
from typing import Any

import sqlalchemy as sa
from flask import Flask, redirect, request
from flask_sqlalchemy import SQLAlchemy
from werkzeug.wrappers import Response
from wtforms import BooleanField, Form, StringField
from wtforms.validators import InputRequired, Length

# What people fill in, and so what a row holds.
FIELDS = ("amount", "name", "email", "form_key", "promise")


class SmallestForm(Form):
    amount = StringField(validators=[InputRequired(), Length(max=10)])
    name = StringField(validators=[InputRequired(), Length(max=120)])
    email = StringField(validators=[InputRequired(), Length(max=254)])
    form_key = StringField(validators=[InputRequired(), Length(max=64)])
    promise = StringField()
    agreed = BooleanField(validators=[InputRequired()])
    wants_updates = BooleanField()


def create_app() -> Flask:
    """A form that is looked at, one row that is safe on the disk, and an address to go on to. No limits, no law, no
    letter, nothing about Stripe."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"] + ".smallest"
    db = SQLAlchemy(app)
    turn = threading.Lock()

    class Row(db.Model):  # type: ignore[name-defined, misc]
        id = sa.Column(sa.Integer, primary_key=True)
        public_id, amount, name, email, form_key, promise = (
            sa.Column(sa.String) for _ in ("public_id", *FIELDS)
        )  # fmt: skip
        wants_updates = sa.Column(sa.Boolean)

    @app.post("/cases/<slug>/pledges")
    def pledge(slug: str) -> Response | tuple[str, int]:
        form = SmallestForm(request.form)
        if not form.validate():
            return slug, 422
        public_id, typed = secrets.token_urlsafe(12), {name: form[name].data for name in FIELDS}
        with turn:
            db.session.add(Row(public_id=public_id, wants_updates=form.wants_updates.data, **typed))
            db.session.commit()
        return redirect(f"/pledges/{public_id}", 303)

    with app.app_context():

        @sa.event.listens_for(db.engine, "connect")
        def _safe(connection: Any, _record: object) -> None:
            for pragma in ("journal_mode=WAL", "busy_timeout=10000", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}")

        db.create_all()
    return app

"""What each call takes, as tables: the name of a parameter and the check that its value must pass."""

from sandbox.core import API_VERSION
from sandbox.fields import (
    Fields,
    card_statement_descriptor,
    choice,
    currency,
    descriptor_suffix,
    email,
    flag,
    flag_or,
    group,
    integer,
    list_of,
    metadata,
    moments,
    text,
    url,
)  # fmt: skip

LOCALES = (
    "auto bg cs da de el en en-GB es es-419 et fi fil fr fr-CA hi-IN hr hu id it ja ko lt lv ms mt nb nl pl pt pt-BR "
    "ro ru sk sl sv th tr vi zh zh-HK zh-TW"
).split()
MESSAGE = group({"message": text(1200)}, required=["message"])
EXPAND: Fields = {"expand": list_of(text())}
PAGING: Fields = {"limit": integer(1, 100), "starting_after": text(), "ending_before": text(), **EXPAND}
DATED: Fields = {**PAGING, "created": moments}
CARD_ONLY = list_of(choice("card"))

# Of what can be bought the sandbox knows only what is described here and now: it has no Products and no Prices.
LINE_ITEM = group(
    {
        "price_data": group(
            {
                "currency": currency,
                "product_data": group({"name": text(), "description": text(), "metadata": metadata}, ["name"]),
                "unit_amount": integer(0),
            },
            ["currency", "product_data", "unit_amount"],
        ),
        "quantity": integer(1),
    },
    ["price_data", "quantity"],
)
SESSION: Fields = {
    **EXPAND,
    "mode": choice("setup", "payment"),
    "ui_mode": choice("hosted_page"),
    "currency": currency,
    "customer": text(),
    "customer_creation": choice("always", "if_required"),
    "customer_email": email,
    "allowed_payment_method_types": CARD_ONLY,
    "billing_address_collection": choice("auto", "required"),
    "client_reference_id": text(200),
    "metadata": metadata,
    "line_items": list_of(LINE_ITEM),
    "payment_intent_data": group(
        {
            "description": text(1000),
            "metadata": metadata,
            "receipt_email": email,
            "statement_descriptor_suffix": descriptor_suffix,
            "transfer_group": text(),
        }
    ),
    "setup_intent_data": group({"description": text(1000), "metadata": metadata}),
    "custom_text": group({"submit": MESSAGE, "after_submit": MESSAGE}),
    "success_url": url,
    "cancel_url": url,
    "locale": choice(*LOCALES),
    "origin_context": choice("web", "mobile_app"),
    "expires_at": integer(),
}
CONFIRMATION: Fields = {
    **EXPAND,
    "payment_method": text(),
    "allowed_payment_method_types": CARD_ONLY,
    "off_session": flag_or("one_off", "recurring"),
    "return_url": url,
    "receipt_email": email,
    "error_on_requires_action": flag,
}
PAYMENT: Fields = {
    **CONFIRMATION,
    "amount": integer(0),
    "currency": currency,
    "confirm": flag,
    "customer": text(),
    "description": text(1000),
    "metadata": metadata,
    "statement_descriptor": card_statement_descriptor,
    "statement_descriptor_suffix": descriptor_suffix,
    "transfer_group": text(),
}
CANCELLATION: Fields = {
    **EXPAND,
    "cancellation_reason": choice("duplicate", "fraudulent", "requested_by_customer", "abandoned"),
}
REFUND: Fields = {
    **EXPAND,
    "amount": integer(1),
    "charge": text(),
    "metadata": metadata,
    "payment_intent": text(),
    "reason": choice("duplicate", "fraudulent", "requested_by_customer"),
}
TRANSFER: Fields = {
    **EXPAND,
    "amount": integer(1),
    "currency": currency,
    "description": text(),
    "destination": text(),
    "metadata": metadata,
    "source_transaction": text(),
    "source_type": choice("card"),
    "transfer_group": text(),
}
REVERSAL: Fields = {**EXPAND, "amount": integer(1), "description": text(), "metadata": metadata}
ENDPOINT: Fields = {
    **EXPAND,
    "url": url,
    "enabled_events": list_of(text(), most=500),
    "api_version": choice(API_VERSION),
    "description": text(),
    "metadata": metadata,
}

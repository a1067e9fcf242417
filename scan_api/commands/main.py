"""The `fanxing` command and its subcommands."""

import typer

from scan_api.commands import campaigns, catalogue, demo, members, orders, setup, trust

app = typer.Typer(
    help="Fanxing 繁星: one item, one code. FANXING_* environment variables configure it, see README.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables would print secrets
)
app.command("init")(setup.init)
app.command("serve")(setup.serve)
app.command("demo")(demo.demo)
app.command("revoke")(trust.revoke)
app.add_typer(trust.issuer, name="issuer")
app.add_typer(trust.key, name="key")
app.add_typer(trust.bundle, name="bundle")
app.add_typer(catalogue.brand, name="brand")
app.add_typer(catalogue.product, name="product")
app.add_typer(catalogue.api_key, name="api-key")
app.add_typer(orders.order, name="order")
app.add_typer(campaigns.campaign, name="campaign")
app.add_typer(members.member, name="member")
app.add_typer(campaigns.ledger_app, name="ledger")


def run() -> None:
    """Entry point of the distribution."""
    app()

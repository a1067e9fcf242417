"""The `fanxing` command and its subcommands."""

import typer

from scan_api.commands import (
    benefits,
    campaigns,
    catalogue,
    crm,
    demo,
    devices,
    draws,
    earning,
    fulfilment,
    inspection,
    ledger,
    members,
    orders,
    packages,
    preview,
    ranges,
    roots,
    runs,
    sandbox,
    setup,
    signer,
    tiers,
    trust,
    webhooks,
)

app = typer.Typer(
    help="Fanxing 繁星: one item, one code. FANXING_* environment variables configure it, see README.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables would print secrets
)
app.command("init")(setup.init)
app.command("serve")(setup.serve)
app.command("demo")(demo.demo)
app.command("openapi")(sandbox.print_openapi)
app.command("revoke")(trust.revoke)
app.add_typer(trust.issuer, name="issuer")
app.add_typer(trust.key, name="key")
app.add_typer(trust.bundle, name="bundle")
app.add_typer(roots.root, name="root")
app.add_typer(catalogue.brand, name="brand")
app.add_typer(catalogue.product, name="product")
app.add_typer(catalogue.api_key, name="api-key")
app.add_typer(sandbox.sandbox, name="sandbox")
app.add_typer(webhooks.webhook, name="webhook")
app.add_typer(signer.signer, name="signer")
app.add_typer(orders.order, name="order")
orders.order.command("export")(runs.export_again)
orders.order.command("resume")(runs.resume)
orders.order.command("cancel")(runs.cancel)
orders.order.command("runs")(runs.list_runs)
orders.order.command("verify")(runs.verify)
orders.order.command("preview")(preview.preview)
orders.order.command("inspect")(inspection.inspect)
orders.order.command("activate")(ranges.activate)
orders.order.command("void")(ranges.void)
orders.order.command("allot")(ranges.allot)
orders.order.command("release")(ranges.release)
orders.order.command("ranges")(ranges.list_ranges)
app.add_typer(packages.package, name="package")
app.add_typer(devices.device, name="device")
app.add_typer(campaigns.campaign, name="campaign")
app.add_typer(benefits.benefit, name="benefit")
app.add_typer(members.member, name="member")
app.add_typer(members.consent, name="consent")
app.add_typer(crm.crm, name="crm")
app.add_typer(tiers.tier, name="tier")
app.add_typer(draws.draw, name="draw")
app.add_typer(earning.earning, name="earning")
app.add_typer(fulfilment.fulfilment_app, name="fulfilment")
app.add_typer(ledger.ledger_app, name="ledger")


def run() -> None:
    """Entry point of the distribution."""
    app()

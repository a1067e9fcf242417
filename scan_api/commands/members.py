"""Members, as far as an operator may touch them."""

from typing import Annotated, Any

import typer

from codes.catalogue import brand_named
from loyalty import members
from scan_api.commands import terminal
from scan_api.commands.terminal import Json, out

member = typer.Typer(help="Members.", no_args_is_help=True)


@member.command("erase")
def erase(
    slug: Annotated[str, typer.Option("--brand", help="A brand of the member's group.")],
    phone: Annotated[str, typer.Option(help="The member's phone number.", prompt=True)],
    yes: Annotated[bool, typer.Option("--yes", help="Do it: nobody can tell any more who the member was.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy the key of a member's personal data. The books stay as they are. Without --yes, only look."""

    async def work() -> dict[str, Any]:
        async with terminal.workshop() as shop, shop.database.writing() as session:
            brand = await brand_named(session, slug)
            member_id = await members.member_with(session, shop.vault, brand.group_id, phone)
            if yes:
                await members.erase(session, member_id)
            return {"member_id": str(member_id), "erased": yes}

    terminal.run(work, as_json=as_json, show=_show)


def _show(result: dict[str, Any]) -> None:
    if result["erased"]:
        out.print(f"Member {result['member_id']} is erased.")
    else:
        out.print(f"This is member {result['member_id']}. Nothing was changed; say --yes to erase.")

"""`info`, `system info`, `system df`, `system dial-stdio`."""

from __future__ import annotations

from teu.cli.grammar import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.grammar import Options
    from teu.cli.session import Session


def _info(session: Session, options: Options, _arguments: list[str]) -> int:
    from teu.cli.info import show_info

    return show_info(session, options.text("format"))


def _df(session: Session, options: Options, _arguments: list[str]) -> int:
    from teu.cli.disk_usage import show_usage

    return show_usage(session, options.text("format") or "table", options.flag("verbose"))


def _dial_stdio(session: Session, _options: Options, _arguments: list[str]) -> int:
    from teu.cli.dial import dial
    from teu.cli.relay import relay_stdio

    relay_stdio(dial(session.client.endpoint))
    return 0


COMMANDS = {
    "system dial-stdio": Command(
        _dial_stdio,
        "",
        long="Connect stdin and stdout to the daemon's socket, for clients that come over ssh.",
    ),
    "system info": Command(
        _info,
        "[OPTIONS]",
        flags=(Flag("format", "f", "string", "'json', or a Go template"),),
    ),
    "system df": Command(
        _df,
        "[OPTIONS]",
        flags=(
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each kind"),
            Flag("verbose", "v", "bool", "Show every image, container and volume"),
        ),
    ),
}  # fmt: skip

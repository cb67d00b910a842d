"""The reference of the command line, from the typer app itself: every command with every option and default."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from planar3d import cli


def command_reference(scripts: Path) -> str:
    """A page of Markdown on every command of `planar3d`, and on the scripts that run one command each."""
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    runs = {path: _command_of(path) for path in sorted(scripts.glob("*.py"))}
    parts = [
        "# Commands",
        f"{cli.app.info.help} This page is generated from the code; `planar3d COMMAND --help` prints the same.",
        "## Scripts",
        f"Each script in `scripts/` runs one command from a checkout: `python scripts/{next(iter(runs)).name} --help`.",
        "\n".join(["| script | command |", "|---|---|", *_script_rows(runs)]),
        *(part for name, command in commands.items() for part in _section(f"planar3d {name}", name, command)),
    ]
    return "\n\n".join(parts) + "\n"


def _command_of(script: Path) -> str:
    """The command that a script hands to `main`."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "main"]
    return ast.unparse(calls[0].args[0])


def _script_rows(runs: dict[Path, str]) -> Iterator[str]:
    for path, name in runs.items():
        yield f"| `scripts/{path.name}` | [`planar3d {name}`](#{name}) |"


def _section(title: str, anchor: str, command: Any) -> list[str]:
    context = command.context_class(command, info_name=title)
    rows = [_row(param, context) for param in command.params]
    needed = [_name(param, context) for param in command.params if param.required]
    return [
        f"## `{title}` {{ #{anchor} }}",
        command.help.strip(),
        f"```text\n{' '.join([title, *needed, '[OPTIONS]'])}\n```",
        "\n".join(["| argument | default | meaning |", "|---|---|---|", *rows]),
    ]


def _row(param: Any, context: Any) -> str:
    default = "required" if param.required else _default(param.default)
    return f"| `{_name(param, context)}` | {default} | {(param.help or '').replace('|', '&#124;')} |"


def _name(param: Any, context: Any) -> str:
    """An option with its value, or an argument as in a usage line."""
    if param.param_type_name == "option":
        return param.get_help_record(context)[0]
    return param.name.upper() + "..." * (param.nargs == -1)


def _default(value: Any) -> str:
    return "–" if value is None or value is False else f"`{value}`"

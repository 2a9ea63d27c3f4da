"""`qtarget cache`: build, verify, list and prune what teachers and references answered."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...trainers.teachers.store import CacheInfo, default_root, list_caches, prune, verify
from ..terminal.progress import ask_and_show
from ..terminal.tables import show_bias


def build(study: Path, console: Console) -> dict[str, Any]:
    """Build, continue or repair the caches that a study file needs, and measure what they lose; role to folder."""
    built = ask_and_show("cache", {"study": str(study)}, console)
    folders = dict(built["folders"])
    for role, folder in folders.items():
        console.print(f"{role:<10} {folder}", soft_wrap=True, markup=False)
    if not folders:
        console.print("No design of this study looks at a teacher or a reference: there is nothing to cache.")
    show_bias(built["bias"], console)
    return folders


def verify_all(console: Console) -> bool:
    """Read every byte of every cache; True when all are whole."""
    whole = True
    for info in list_caches(default_root()):
        try:
            verify(info.folder)
            console.print(f"whole  {info.folder}", soft_wrap=True, markup=False)
        except ValueError as error:
            whole = False
            console.print(f"[red]torn[/]   {escape(str(error))}", soft_wrap=True)
    return whole


def show(console: Console) -> list[dict[str, Any]]:
    """Print and return what there is, the most recently used first."""
    infos = list_caches(default_root())
    table = Table(title=escape(f"Caches in {default_root()}"), title_justify="left", header_style="bold")
    for name in ("id", "tokens", "size", "bytes a token", "used", "state"):
        table.add_column(name)
    for info in infos:
        table.add_row(*_row(info))
    console.print(table)
    return [_data(info) for info in infos]


def remove_unused(days: float, console: Console) -> list[str]:
    """Remove caches that nothing has used for so many days."""
    removed = prune(default_root(), unused_days=days)
    for info in removed:
        console.print(f"removed {info.folder} ({info.bytes / 1e6:.1f} MB)", soft_wrap=True, markup=False)
    console.print(f"{len(removed)} removed, {sum(info.bytes for info in removed) / 1e6:.1f} MB freed")
    return [str(info.folder) for info in removed]


def _data(info: CacheInfo) -> dict[str, Any]:
    tokens = sum(entry.tokens for entry in info.manifest.shards) if info.manifest else None
    facts = {"folder": str(info.folder), "bytes": info.bytes, "tokens": tokens, "used": info.used}
    return {**facts, "problem": info.problem, "key": info.manifest.key.model_dump() if info.manifest else None}


def _row(info: CacheInfo) -> tuple[str, ...]:
    tokens = _data(info)["tokens"]
    each = f"{info.bytes / tokens:.0f}" if tokens else ""
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.used))
    state = "whole" if info.problem is None else info.problem
    return info.folder.name[:12], str(tokens or ""), f"{info.bytes / 1e6:.1f} MB", each, used, state

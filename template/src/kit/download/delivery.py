"""Bring one file: alone among processes, from one address after another, until its content is right."""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from src.kit.config import UserError
from src.kit.download.archives import DAMAGE, gunzip
from src.kit.download.cache import locked, work_path
from src.kit.download.checksums import digest
from src.kit.download.connection import SourceFailed
from src.kit.download.display import Meter
from src.kit.download.journal import Journal, discard
from src.kit.download.sources import is_web, locate
from src.kit.download.transfer import Stopped, Transfer

MAX_RATIO = 200  # unpacked : packed, where the size isn't known; image data packs at most a tenth as well


@dataclass
class Delivery:
    """The fetching of one file; `say` shows a line, `stop` ends it from outside."""

    urls: str | Sequence[str]
    target: Path
    checksum: str
    size: int | None
    meter: Meter
    say: Callable[[str], None]
    stop: threading.Event
    waiting: bool = False  # and it was said

    def run(self) -> None:
        """Fetch the file, unless it is there; see `fetching.fetch` for the errors."""
        self.check()
        if self.is_there():
            return
        sources = locate(self.urls)
        try:
            with locked(self.target, self.wait):
                if not self.is_there():  # another process may have brought it
                    self.bring(sources)
        except OSError as error:
            reason = f"Cannot write {self.target}: {error.strerror or error}"
            raise UserError(f"{reason}; free some space or set data.root to a folder that can be written.") from error

    def bring(self, sources: list[str]) -> None:
        """Try the sources in turn."""
        reasons = []
        for source in sources:
            try:
                found = self.receive(source, plain=False) or self.receive(source, plain=True)
            except SourceFailed as error:
                reasons.append(str(error))
                continue
            if found == self.checksum:
                return
            reasons.append(f"{source} has another content than its publisher's ({found}, not {self.checksum})")
        self.tidy()
        raise UserError(
            f"Cannot download {self.target.name}: {'; '.join(reasons)}: check the network or set DATASET_MIRROR to a "
            "folder or URL that has it, then run again."
        )

    def receive(self, source: str, plain: bool) -> str:
        """Receive and install; returns the checksum found, or "" if it is wrong but may be right when `plain`."""
        unpack = urlsplit(source).path.endswith(".gz") and self.target.suffix != ".gz"
        if is_web(source):
            size = None if unpack else self.size
            one_go = Transfer(source, self.target, size, self.meter, self.stop).run(plain)
        else:
            one_go = True
            shutil.copyfile(source, work_path(self.target, ".part"))
        found = self.install(unpack)
        return found if found == self.checksum or one_go else ""

    def install(self, unpack: bool) -> str:
        """Move the received file to the target if its checksum is right, else delete it; returns the checksum found."""
        whole = part = work_path(self.target, ".part")
        try:
            if unpack:
                whole = work_path(self.target, ".unpacked")
                gunzip(part, whole, self.size or MAX_RATIO * part.stat().st_size)
            found = digest(whole, self.checksum, self.check)
            if found == self.checksum:
                os.replace(whole, self.target)
        except (*DAMAGE, UserError) as error:  # the latter: it expands too far
            found = f"damaged: {error}"
        whole.unlink(missing_ok=True)
        discard(part, work_path(self.target, ".state"))
        return found

    def is_there(self) -> bool:
        """Whether the target has the right content."""
        if not self.target.is_file() or digest(self.target, self.checksum, self.check) != self.checksum:
            return False
        self.say(f"{self.target} is already there.")
        return True

    def tidy(self) -> None:
        """Keep only what can be resumed."""
        part, state = work_path(self.target, ".part"), work_path(self.target, ".state")
        journal = Journal.load(part, state)
        if journal is None or journal.done == 0:
            discard(part, state)

    def wait(self) -> None:
        """Say once that another process has the lock."""
        self.check()
        if not self.waiting:
            self.say(f"Waiting for another process that is fetching {self.target}.")
        self.waiting = True

    def check(self) -> None:
        """Raise if the file is no longer wanted."""
        if self.stop.is_set():
            raise Stopped

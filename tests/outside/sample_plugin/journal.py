"""A wrapper: writes one line an operation into the file that SAMPLE_JOURNAL names."""

import os

from execdrv.hookspecs import hookimpl


def _write(line: str) -> None:
    if path := os.environ.get("SAMPLE_JOURNAL"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


class Journal:
    @hookimpl(wrapper=True)
    def execdrv_start(self, container):
        _write(f"starting {container.id}")
        process = yield
        _write(f"started {container.id}")
        return process

    @hookimpl(wrapper=True)
    def execdrv_destroy(self, container):
        result = yield
        _write(f"destroyed {container.id}")
        return result


plugin = Journal()

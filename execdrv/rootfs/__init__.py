"""Root file systems built from this machine's own files, and the cache they are kept in.

`default_root` is what a run uses when nobody names a directory; `make_root` adds programs, or makes
a private tree. Runs in the command, the host or the kit, never in a supervisor, except `use_root`,
whose descriptor the supervisor holds for the container's life. Knows no driver.

    plan.py             what will be in a tree, as data
    recipe.py           fills it from names; python.py, skeleton.py: parts of that
    elf.py              libraries, read from the ELF files
    copy.py             writes the tree
    tree.py             stamp, digest and removal of trees
    manifest.py         what the cache remembers, and when it is believed
    cache.py, make.py   the cache, and making into it
"""

from execdrv.rootfs.cache import cache_dir, is_cached_root, list_roots, remove_root, use_root
from execdrv.rootfs.make import default_root, make_root
from execdrv.rootfs.manifest import Root, verify_root

__all__ = [
    "Root",
    "cache_dir",
    "default_root",
    "is_cached_root",
    "list_roots",
    "make_root",
    "remove_root",
    "use_root",
    "verify_root",
]

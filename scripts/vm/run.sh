#!/bin/sh
# Run a command in a virtual machine with a kernel of its own, and exit with its status.
#
#   scripts/vm/run.sh [-t SECONDS] COMMAND [ARGUMENT...]
#
# The way to prove what the development machine can't show: cgroup v2 with every controller, swap,
# another kernel. The machine has no disk and no network: a Debian cloud kernel, busybox, this
# machine's Python with the packages named below, and a copy of the project's tree in /project,
# which is the command's working directory and is thrown away afterwards. The command's output
# comes out as it is, stdout and stderr together. It runs as root.
#
# Settings (environment):
#   VM_PYTHON         the interpreter whose base and site-packages go in (default: python3)
#   VM_PACKAGES       what of its site-packages (default: what the tests need)
#   VM_KERNEL         the kernel's Debian package (default: the newest cloud kernel)
#   VM_CGROUPS        v2 (default), hybrid, v1 or none; v1 memory needs a 6.1 kernel
#   VM_SWAP_MB        size of the swap, in compressed memory (default: 0)
#   VM_MEMORY_MB      memory (default: 1024)
#   VM_CPUS           processors (default: 2)
#   VM_KERNEL_ARGS    more for the kernel's command line
#   EXECDRV_VM_CACHE  where kernels and images stay (default: ~/.cache/execdrv-vm)
#
# Needs: apt-get, dpkg-deb, cpio, xz, busybox (static), kmod, qemu-system-x86_64. Emulation only
# (tcg): it works where there is no /dev/kvm, or one under which guests hang.
# Exits with the command's status; 124 when the time was over, 125 when the machine failed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)
cache=${EXECDRV_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/execdrv-vm}
python=${VM_PYTHON:-python3}
packages=${VM_PACKAGES:-attr attrs pluggy pytest _pytest py iniconfig packaging pygments elftools}
modules="overlay veth loop zram lz4 lz4_compress lzo-rle bridge nf_tables tun dummy"
timeout_s=600

run='' root='' finished=''
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    status=$?
    for directory in "$run" "$root"; do
        [ -z "$directory" ] || rm -rf "$directory"
    done
    # A tool that failed on the way must not look like the command's own status.
    [ -n "$finished" ] || status=125
    exit "$status"
}
trap clean_up EXIT
trap 'exit 125' INT TERM

fail() {
    echo "cannot run the virtual machine: $*" >&2
    exit 125
}

while getopts t: option; do
    case $option in
    t) timeout_s=$OPTARG ;;
    *) exit 125 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || fail "no command was given"
for tool in apt-get dpkg-deb cpio xz busybox modprobe qemu-system-x86_64 timeout "$python"; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done

# 1. The kernel: downloaded once, unpacked, never installed.
fetch_kernel() {
    package=${VM_KERNEL:-}
    if [ -z "$package" ]; then
        package=$(apt-cache search --names-only '^linux-image-[0-9].*-cloud-amd64$' |
            cut -d' ' -f1 | sort -V | tail -n 1)
    fi
    [ -n "$package" ] || fail "apt knows no package linux-image-*-cloud-amd64 (apt-get update?)"
    kernel=$cache/$package
    [ ! -e "$kernel/done" ] || return 0
    mkdir -p "$cache"
    new=$(mktemp -d "$cache/new.XXXXXX")
    echo "fetching $package ..." >&2
    (cd "$new" && apt-get -qq download "$package" 2>/dev/null) || fail "apt-get download $package"
    dpkg-deb -x "$new"/*.deb "$new/root"
    rm -f "$new"/*.deb
    cp "$new"/root/boot/vmlinuz-* "$new/vmlinuz"
    # Debian 13 and later: /usr/lib/modules.
    [ -d "$new/root/lib/modules" ] || mv "$new/root/usr/lib" "$new/root/lib"
    touch "$new/done"
    mv -T "$new" "$kernel" 2>/dev/null || rm -rf "$new"
}

# 2. The base image: everything but the project; made anew when what goes in has changed.
make_base() {
    # shellcheck disable=SC2086 # a list of names
    facts=$("$python" - $packages <<'EOF'
import os, sys, sysconfig
paths = sysconfig.get_paths()
print(sys.base_prefix, os.path.realpath(sys.executable), paths["stdlib"], paths["purelib"])
for name in sys.argv[1:]:
    for entry in sorted(os.listdir(paths["purelib"])):
        if entry == name or entry.startswith((name + ".", name + "-")):
            print(entry, os.stat(os.path.join(paths["purelib"], entry)).st_mtime_ns)
EOF
    )
    key=$(printf '%s\n' "$facts" "$kernel" "$packages" "$modules" "$(cat "$0" "$here/init")" |
        sha256sum | cut -c1-16)
    base=$kernel-$key.cpio
    [ ! -e "$base" ] || return 0
    echo "making the image ..." >&2
    root=$(mktemp -d "$cache/root.XXXXXX")
    mkdir -p "$root/bin" "$root/sbin" "$root/usr/bin" "$root/proc" "$root/sys" "$root/dev" \
        "$root/tmp" "$root/run" "$root/root" "$root/etc" "$root/var" "$root/site"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list | grep -vx busybox); do
        ln -s busybox "$root/bin/$applet"
    done
    # Where the kernel looks for it when it wants a module itself.
    ln -s ../bin/busybox "$root/sbin/modprobe"
    cp "$here/init" "$root/init"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    copy_python
    copy_modules
    # Shared libraries of everything that was copied, and the loader.
    find "$root" -type f \( -name '*.so*' -o -perm -u+x \) -exec ldd {} + 2>/dev/null |
        sed -n 's/.*\(=>\)\{0,1\}[[:space:]]\(\/[^ ]*\) (0x.*/\2/p' | sort -u |
        while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            cp -L "$library" "$root$library"
        done
    # Not compressed: unpacking is slow on an emulated processor.
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$base.new"
    # One image a kernel; a machine that is booting from an older one has its own copy already.
    rm -f "$kernel"-*.cpio
    mv "$base.new" "$base"
    rm -rf "$root"
    root=''
}

copy_python() {
    interpreter=$(printf '%s\n' "$facts" | sed -n '1s/^[^ ]* \([^ ]*\) .*/\1/p')
    stdlib=$(printf '%s\n' "$facts" | sed -n '1s/^[^ ]* [^ ]* \([^ ]*\) .*/\1/p')
    site=$(printf '%s\n' "$facts" | sed -n '1s/.* //p')
    mkdir -p "$root$(dirname "$interpreter")" "$root$(dirname "$stdlib")"
    cp "$interpreter" "$root$interpreter"
    ln -sf "$interpreter" "$root/usr/bin/python3"
    cp -a "$stdlib" "$root$(dirname "$stdlib")/"
    for unwanted in test idlelib tkinter ensurepip lib2to3 site-packages dist-packages; do
        rm -rf "${root:?}$stdlib/$unwanted"
    done
    printf '%s\n' "$facts" | sed 1d | while read -r entry _; do
        cp -a "$site/$entry" "$root/site/"
    done
    find "$root" -name __pycache__ -type d -prune -exec rm -rf {} +
    # Compiled here: an emulated processor takes seconds for it at every boot.
    "$python" -m compileall -q -s "$root" "$root$stdlib" "$root/site" >/dev/null 2>&1 || true
}

copy_modules() {
    version=$(ls "$kernel/root/lib/modules")
    tree=$root/lib/modules/$version
    mkdir -p "$tree"
    cp "$kernel/root/lib/modules/$version"/modules.builtin* \
        "$kernel/root/lib/modules/$version"/modules.order "$tree/"
    depmod -b "$kernel/root" "$version"
    for module in $modules; do
        modprobe -d "$kernel/root" -S "$version" --show-depends "$module" 2>/dev/null || true
    done | sed -n 's/^insmod \(.*\.ko[.a-z]*\).*/\1/p' | sort -u | while read -r file; do
        # The path may hold a doubled slash.
        inside=$(printf '%s' "$file" | sed "s|.*/lib/modules/|lib/modules/|")
        mkdir -p "$root/$(dirname "$inside")"
        # The guest's modprobe is busybox's, which unpacks nothing.
        case $file in
        *.xz) xz -dc "$file" >"$root/${inside%.xz}" ;;
        *) cp "$file" "$root/$inside" ;;
        esac
    done
    depmod -b "$root" "$version"
}

# 3. The project's tree and the command, as a second archive behind the first.
make_tree() {
    mkdir -p "$run/tree/project" "$run/tree/vm"
    (cd "$project" && tar -c --exclude=.git --exclude=__pycache__ --exclude=.tox \
        --exclude=.mypy_cache --exclude=.ruff_cache --exclude=.pytest_cache --exclude=build \
        --exclude='*.egg-info' --exclude='.venv*' .) | tar -x -C "$run/tree/project"
    describe_project "$run/tree"
    for word in "$@"; do
        printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"
    done >"$run/tree/vm/command"
    {
        echo "cgroups=${VM_CGROUPS:-v2}"
        echo "swap_mb=${VM_SWAP_MB:-0}"
    } >"$run/tree/vm/settings"
    cat "$base" >"$run/initrd"
    (cd "$run/tree" && find . | cpio --quiet -o -H newc) >>"$run/initrd"
}

# What an installation would have added: the entry points, by which drivers are found, and the
# command. Takes the image's Python, 3.11 or later, at its word.
describe_project() {
    "$python" - "$project/pyproject.toml" "$1" <<'EOF'
import os, sys, tomllib
source, tree = sys.argv[1:]
with open(source, "rb") as stream:
    project = tomllib.load(stream)["project"]
name = project["name"]
home = f"{tree}/site/{name}-0.dist-info"
os.makedirs(home)
with open(f"{home}/METADATA", "w") as stream:
    stream.write(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
with open(f"{home}/entry_points.txt", "w") as stream:
    for group, entries in groups.items():
        stream.write(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) + "\n")
os.makedirs(f"{tree}/usr/bin")
for command, target in project.get("scripts", {}).items():
    module, function = target.split(":")
    with open(f"{tree}/usr/bin/{command}", "w") as stream:
        stream.write(
            f"#!/usr/bin/python3\nimport sys\nfrom {module} import {function}\n"
            f"sys.exit({function}())\n"
        )
    os.chmod(f"{tree}/usr/bin/{command}", 0o755)
EOF
}

fetch_kernel
make_base
run=$(mktemp -d "${TMPDIR:-/tmp}/execdrv-vm.XXXXXX")
make_tree "$@"

# 4. Boot. The first serial line is the command's output, the second carries the kernel's words
#    and, at the end, the status.
status=0
timeout -k 5 "$timeout_s" qemu-system-x86_64 -accel tcg -cpu max -smp "${VM_CPUS:-2}" \
    -m "${VM_MEMORY_MB:-1024}" -nodefaults -no-user-config -no-reboot -display none -monitor none \
    -chardev stdio,id=out,signal=off -serial chardev:out -serial "file:$run/status" \
    -kernel "$kernel/vmlinuz" -initrd "$run/initrd" \
    -append "console=ttyS1 quiet panic=-1 ${VM_KERNEL_ARGS:-}" </dev/null || status=$?
said=$(sed -n 's/^vm-status \([0-9]*\).*/\1/p' "$run/status" | tail -n 1)
if [ -n "$said" ]; then
    finished=yes
    exit "$said"
fi
tail -n 25 "$run/status" >&2
[ "$status" -ne 124 ] || {
    echo "the virtual machine was stopped after $timeout_s s" >&2
    finished=yes
    exit 124
}
fail "it ended without a status (qemu: $status)"

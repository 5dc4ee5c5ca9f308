#!/bin/bash
# Installs what `make run` or `make test` lacks, and nothing twice. A call with nothing to do ends
# in a fraction of a second and asks neither apt-get nor pip.
#
#   scripts/setup.sh run     system packages, .venv with execdrv and its lxc extra, from an sdist
#   scripts/setup.sh test    the packages that tests need too, and tox in .cache/tools
#   scripts/setup.sh vm      as test, and what a virtual machine takes
#   scripts/setup.sh bench   as run, and the programs that bench/ compares with
#
# $PYTHON names another interpreter than the one that would be found. All output of the programs
# called here goes to .cache/setup.log; its end is shown when one fails.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly log=$PWD/.cache/setup.log
readonly venv=$PWD/.venv
readonly tools=$PWD/.cache/tools
readonly print_include='import sysconfig; print(sysconfig.get_path("include"))'
# PyPI's lxc bindings do not build for this version of Python or a later one.
readonly first_without_bindings=313

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    printf 'setup: cannot %s\n' "$*" >&2
    exit 1
}

# step WHAT COMMAND...: show WHAT and how long it took; keep the command's output for the log.
step() {
    local what=$1 start=$SECONDS
    shift
    printf 'setup: %s ...' "$what" >&2
    printf '\n== %s: %s\n' "$what" "$*" >>"$log"
    # Without the lock's descriptor: a service that a package starts would keep it for good.
    if "$@" >>"$log" 2>&1 </dev/null 9>&-; then
        printf ' %d s\n' $((SECONDS - start)) >&2
    else
        printf ' failed\n' >&2
        return 1
    fi
}

fail_with_log() {
    tail -n 20 "$log" >&2
    fail "$* (the whole output: .cache/setup.log)"
}

# step, but without it there is no going on.
required() {
    step "$@" || fail_with_log "go on without this: $1"
}

# ---- Python ----------------------------------------------------------------------------------

# Prints the version as 311, or fails for one that is too old.
version_of() {
    "$1" -I -S -c 'import sys; v = sys.version_info; print("%d%02d" % v[:2]); sys.exit(v < (3, 11))' \
        2>/dev/null
}

# Sets $python and $version. Debian's own comes first: only that one sees Debian's python3-lxc.
find_python() {
    local name path
    for name in ${PYTHON:-/usr/bin/python3 python3 python3.12 python3.11 python3.14 python3.13}; do
        path=$(command -v "$name") || continue
        version=$(version_of "$path") || continue
        python=$path
        return 0
    done
    return 1
}

# ---- System packages -------------------------------------------------------------------------

# Is what PACKAGE is wanted for here by another way than that package?
provided_otherwise() {
    local libc compiler=${CC:-gcc}
    case $1 in
        gcc) command -v "${compiler%% *}" || command -v cc ;;
        libc6-dev) libc=$(${CC:-cc} -print-file-name=libc.a) && [[ $libc == /* ]] ;;
        iproute2) command -v ip ;;
        procps) command -v ps ;;
        pkg-config) command -v pkg-config ;;
        lxc) command -v lxc-start ;;
        lxc-dev) pkg-config --exists lxc ;;
        python3*-venv) "$python" -I -S -c 'import ensurepip, venv' ;;
        python3*-dev) [ -e "$("$python" -I -S -c "$print_include")/Python.h" ] ;;
        qemu-system-x86) command -v qemu-system-x86_64 ;;
        cpio | xz-utils | kmod) command -v "${1%-utils}" ;;
        bubblewrap) command -v bwrap ;;
        runc) command -v runc ;;
        *) false ;;
    esac >/dev/null 2>&1
}

# Prints those of PACKAGE... that are not there.
list_missing() {
    local installed package
    [ $# -gt 0 ] || return 0
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null) || true
    for package in "$@"; do
        [[ $'\n'$installed$'\n' == *$'\n'"installed $package"$'\n'* ]] ||
            provided_otherwise "$package" || printf '%s\n' "$package"
    done
}

apt_get() {
    # A new machine often still runs its own upgrade: wait for it. Nothing may ask a question.
    DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

apt_update() {
    [ -z "${lists_are_new:-}" ] || return 0
    lists_are_new=yes
    # One unreachable source must not stop what the others can deliver.
    step "asking for the lists of packages" apt_get update || say "going on with the lists that are here"
}

# install_packages PACKAGE...: installs what is missing of them.
install_packages() {
    local -a missing
    mapfile -t missing < <(list_missing "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "cannot install ${missing[*]}: there is no apt-get here; bring by other means what these" \
            "Debian packages bring"
        return 1
    fi
    apt_update
    step "installing ${missing[*]}" apt_get install --no-install-recommends "${missing[@]}"
}

# Sets $python and $version, and $wanted and $for_lxc to the packages that go with them.
plan_packages() {
    # Ubuntu 22.04 has a newer Python beside its python3.
    find_python || {
        install_packages python3
        find_python
    } || {
        install_packages python3.11
        find_python
    } || fail "find Python 3.11 or newer: install one, or name it with PYTHON=/its/path"
    wanted=("${python##*/}-venv" gcc libc6-dev iproute2 procps)
    for_lxc=(lxc)
    site_packages=no
    if [ "$version" -lt $first_without_bindings ]; then
        for_lxc+=(lxc-dev pkg-config "${python##*/}-dev")
    elif [ "$python" = /usr/bin/python3 ]; then
        for_lxc+=(python3-lxc)
        site_packages=yes
    fi
    case $purpose in
        test) wanted+=(busybox-static bubblewrap) ;;
        vm) wanted+=(busybox-static qemu-system-x86 cpio xz-utils kmod) ;;
        bench) wanted+=(busybox-static runc bubblewrap) ;;
    esac
}

install_system() {
    plan_packages
    if [ ! -e .cache/without-lxc ]; then
        install_packages "${wanted[@]}" "${for_lxc[@]}" && return
    fi
    install_packages "${wanted[@]}" || fail_with_log "go on without ${wanted[*]}"
    # Everything but the lxc driver works without its packages. They are tried once, not every time.
    if [ ! -e .cache/without-lxc ]; then
        touch .cache/without-lxc
        say "going on without ${for_lxc[*]}: the lxc driver will be unavailable (why:" \
            ".cache/setup.log; to try again: make clean)"
    fi
}

# ---- Virtual environments --------------------------------------------------------------------

pip_for() {
    local target=$1
    shift
    PIP_ROOT_USER_ACTION=ignore "$venv/bin/python" -m pip --python "$target/bin/python" \
        --disable-pip-version-check --no-input install "$@"
}

make_venv() {
    local made_for="$python $version site-packages=$site_packages"
    local -a options=()
    [ $site_packages = no ] || options+=(--system-site-packages)
    # bin/python is a link to the interpreter: it fails this test when that one was removed.
    if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/made-for" 2>/dev/null)" = "$made_for" ]; then
        return
    fi
    required "making .venv with $python" "$python" -m venv --clear "${options[@]}" "$venv"
    rm -rf "$tools"
    printf '%s\n' "$made_for" >"$venv/made-for"
}

# install_tool NAME REQUIREMENT: into an environment of its own, so that .venv holds what a user has.
install_tool() {
    [ ! -e "$tools/has-$1" ] || return 0
    [ -x "$tools/bin/python" ] ||
        required "making .cache/tools" "$python" -m venv --without-pip "$tools"
    required "installing $1" pip_for "$tools" "$2"
    touch "$tools/has-$1"
}

# ---- The project -----------------------------------------------------------------------------

# Prints the files of PATH... that git tracks or would, each ended by a zero byte.
list_sources() {
    local file
    git -c safe.directory="$PWD" ls-files -z -co --exclude-standard -- "$@" |
        while IFS= read -r -d '' file; do
            [ ! -f "$file" ] || printf '%s\0' "$file"
        done
}

hash_sources() {
    list_sources execdrv drivers conformance pyproject.toml setup.py MANIFEST.in scripts/setup.sh |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
}

# An sdist from a copy of git's files: no file left in the tree by an earlier build gets in.
build_sdist() {
    rm -rf .cache/sdist &&
        mkdir -p .cache/sdist/tree &&
        list_sources . | tar -c --null -T - | tar -x -C .cache/sdist/tree &&
        (
            cd .cache/sdist/tree &&
                "$tools/bin/python" -c 'import setuptools.build_meta as b; b.build_sdist("..")'
        ) &&
        rm -r .cache/sdist/tree
}

install_project() {
    local sources sdist
    sources=$(hash_sources)
    [ "$(cat "$venv/installed-from" 2>/dev/null)" != "$sources" ] || return 0
    rm -f "$venv/installed-from"
    install_tool setuptools 'setuptools>=77'
    required "building the sdist" build_sdist
    sdist=$(echo .cache/sdist/*.tar.gz)
    if ! step "installing execdrv with its lxc extra" pip_for "$venv" "${sdist}[lxc]"; then
        say "going on without the lxc extra (why: .cache/setup.log); the lxc driver will be unavailable"
        required "installing execdrv" pip_for "$venv" "$sdist"
    fi
    printf '%s\n' "$sources" >"$venv/installed-from"
}

purpose=${1:-}
case $purpose in
    run | test | vm | bench) ;;
    *) fail "set up '$purpose': the purposes are run, test, vm and bench" ;;
esac
[ "$EUID" = 0 ] || fail "set up as an ordinary user: execdrv needs root, and so does apt-get; use sudo make"
umask 022
mkdir -p .cache
exec 9>.cache/setup.lock
flock 9
: >"$log"
install_system
make_venv
case $purpose in
    test | vm) install_tool tox 'tox>=4.26,<5' ;;
    *) install_project ;;
esac

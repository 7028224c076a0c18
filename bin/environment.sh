# For bin/demo and bin/test: a virtual environment in .venv, and Debian packages where we may
# install them.  Sourced by bash; $root is the folder of the project.

readonly venv=$root/.venv

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# apt_install PACKAGE...: as root on a Debian; false where that cannot be done.
apt_install() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    say "installing with apt: $*"
    local options=(-y -qq -o Dpkg::Use-Pty=0 --no-install-recommends)
    export DEBIAN_FRONTEND=noninteractive
    export RUNLEVEL=1    # no service is started (runlevel(8))
    { apt-get update -qq && apt-get install "${options[@]}" "$@"; } </dev/null >&2
}

# need COMMAND=PACKAGE...: install what is missing, or end with the list of it.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    apt_install "${missing[@]}" ||
        die "please install: ${missing[*]}   (on Debian: apt-get install ${missing[*]})"
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || die "${pair#*=} was installed, but there is no ${pair%%=*}"
    done
}

# A Python that will do, in $python: the system's own before others, for it is built with all
# optimisation, which a server feels; then one that needs nothing installed.
find_python() {
    local candidate condition
    for condition in ready usable; do
        for candidate in ${PYTHON:-} /usr/bin/python3 python3 python3.{14,13,12,11}; do
            if "is_$condition" "$candidate" 2>/dev/null; then
                python=$candidate
                return
            fi
        done
    done
    die "Python 3.11 or later is needed (on Debian: apt-get install python3 python3-venv)"
}

is_usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }

# It can make virtual environments, or will after apt_install.
is_ready() {
    is_usable "$1" || return 1
    "$1" -c 'import ensurepip, venv' && return
    [[ $1 == /usr/bin/* && $(id -u) == 0 ]] && command -v apt-get >/dev/null
}

make_venv() {
    find_python
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        local package
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        apt_install "$package" ||
            die "$python cannot make virtual environments; please install: $package"
    fi
    say "making a virtual environment in $venv"
    "$python" -m venv --clear "$venv"
}

# venv_with EXTRA: .venv with forkd (editable) and its requirements; EXTRA as in setup.cfg, or "".
# A stamp remembers for which requirements that was done: the second run installs nothing.
venv_with() {
    local extra=$1 stamp=$venv/.requirements wanted
    wanted=$(cat "$root/setup.cfg" "$root/pyproject.toml" | cksum; printf '%s' "$root")
    if [[ -x $venv/bin/python && $(cat "$stamp" 2>/dev/null) == "$wanted"*"extra: $extra"* ]]; then
        return
    fi
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
    say "installing forkd${extra:+ and what its ${extra}s need} into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --editable "$root${extra:+[$extra]}" </dev/null >&2
    printf '%s\nextra: %s\n' "$wanted" "$extra" >"$stamp"
}

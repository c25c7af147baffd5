# Sourced by ./dev and scripts: installing Debian packages, and saying what is wrong when that fails.
# shellcheck shell=bash

say() {
  if [[ -t 2 ]]; then printf '\e[1m== %s\e[0m\n' "$*" >&2; else printf '== %s\n' "$*" >&2; fi
}

# die MESSAGE [LINE...]
die() {
  printf '\n./dev: %s\n' "$1" >&2
  shift
  (($# == 0)) || printf '%s\n' "$@" | sed 's/^/   /' >&2
  exit 1
}

declare -A packages=(
  [build]="g++ cmake ninja-build pkg-config ccache libfmt-dev libspdlog-dev libcli11-dev libtomlplusplus-dev
           nlohmann-json3-dev libfuse3-dev liburing-dev libslirp-dev libxdp-dev libbpf-dev libgtest-dev libgmock-dev libbenchmark-dev python3"
  [guest]=""
  [dpdk]="dpdk-dev"
  [fuzz]="clang-19 libclang-rt-19-dev"
  [bench]="fio qemu-system-common"
  [soak]="qemu-system-common"
  [check]="clang-19 clang-tidy-19 clang-format-19 mandoc shellcheck"
)

# A folder can add what it needs: one package a line in its file "packages".
for folder in tests/guest fuzz bench; do
  [[ ! -r $folder/packages ]] || packages[${folder##*/}]+=" $(<$folder/packages)"
done

# missing PACKAGE...: those that are not installed.
missing() {
  local package state installed=" "
  while read -r package state; do
    [[ $state != installed ]] || installed+="$package "
  done < <(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null)
  for package; do
    [[ $installed == *" $package "* ]] || printf '%s ' "$package"
    installed+="$package "
  done
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

require_debian_12() {
  local PRETTY_NAME="an unknown system" ID="" VERSION_ID=""
  [[ ! -r /etc/os-release ]] || source /etc/os-release
  [[ $ID == debian && $VERSION_ID == 12 ]] || die "this is $PRETTY_NAME; ./dev can set up Debian 12 only" \
    "Missing here: $1" "Install the like yourself and say RINGWAY_SETUP=skip, or use a Debian 12 container."
}

require_root() {
  ((EUID != 0)) || return 0
  local by_hand="By hand: $1"
  type -P sudo >/dev/null || die "installing packages needs root, and there is no sudo here" "$by_hand"
  sudo -n true 2>/dev/null || [[ -t 0 ]] || die "sudo wants a password, and there is no terminal to ask for it" "$by_hand"
  sudo true || die "sudo refused" "$by_hand"
}

require_space() {
  local free
  free=$(($(df --output=avail -m /var /usr | sort -n | sed -n 2p)))
  ((free >= $1)) || die "the disk is too full: $free MB are free for packages, about $1 MB are needed"
}

# Shows what apt-get does, as one line on a terminal, else as a line every ten seconds; keeps all of it in $1.
show_progress() {
  local log=$1 line last=$SECONDS
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    [[ $line =~ ^(Get:|Unpacking|Setting|Waiting) ]] || continue
    if [[ -t 2 ]]; then
      printf '\r\e[K   %.90s' "$line" >&2
    elif ((SECONDS - last >= 10)); then
      printf '   %.90s\n' "$line" >&2
      last=$SECONDS
    fi
  done
  [[ ! -t 2 ]] || printf '\r\e[K' >&2
}

apt() {
  printf '$ apt-get %s\n' "$*" >>"$apt_log"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
    -o Acquire::Retries=3 "$@" </dev/null 2>&1 | show_progress "$apt_log"
}

# Dies with the reason that the log of a failed apt-get shows, in plain words.
explain_apt() {
  local reason="apt-get failed"
  case $(tail -n 40 "$1") in
    *"No space left"* | *"enough free space"*) reason="the disk is full" ;;
    *"dpkg was interrupted"*) reason="the installation was interrupted: running the same command again goes on with it" ;;
    *"not valid yet"* | *"is expired"*) reason="this machine's clock and the mirror disagree: is the date right? ($(date))" ;;
    *"Could not get lock"*) reason="another apt or dpkg has been running for five minutes" ;;
    *"Could not resolve"* | *"Temporary failure"* | *"Could not connect"* | *"Connection timed out"*)
      reason="apt-get cannot reach its mirror: is there a network, or a proxy to configure for apt?" ;;
    *"NO_PUBKEY"* | *"is not signed"*) reason="apt does not trust its mirror: a key is missing" ;;
    *"Unable to locate package"* | *"no installation candidate"*)
      reason="apt does not know a package: is the bookworm main archive in /etc/apt/sources.list(.d)?" ;;
  esac
  die "$reason" "From $1:" "$(grep -E '^(E|W|Err|dpkg|cp|tar)\b' "$1" | awk '!seen[$1 $2 $3]++' | tail -n 6)"
}

# setup GROUP...: installs what is missing of these groups of packages. Quick when nothing is.
setup() {
  [[ ${RINGWAY_SETUP:-} != skip ]] || return 0
  local group wanted="" needed apt_log=build/setup.log
  for group; do wanted+=" ${packages[$group]}"; done
  # shellcheck disable=SC2086
  needed=$([[ -z $wanted ]] || missing $wanted)
  [[ -n $needed ]] || return 0
  require_debian_12 "$needed"
  require_root "apt-get install --no-install-recommends $needed"
  require_space $(($(wc -w <<<"$needed") > 3 ? 1500 : 300))
  say "installing $needed"
  : >"$apt_log"
  as_root dpkg --configure -a >>"$apt_log" 2>&1 || true
  # shellcheck disable=SC2086
  install_packages $needed || explain_apt "$apt_log"
}

# package_lists MAX_AGE_DAYS: whether apt has any that are no older.
package_lists() {
  [[ -n $(find /var/lib/apt/lists -name '*_Packages*' -mtime "-$1" -print -quit 2>/dev/null) ]]
}

# The guest's kernel is downloaded with apt, but not installed: apt must know of packages even where all are installed.
need_package_lists() {
  [[ ${RINGWAY_SETUP:-} == skip ]] || package_lists 1000 && return
  local apt_log=build/setup.log
  require_root "apt-get update"
  say "reading apt's package lists"
  apt update || explain_apt "$apt_log"
}

install_packages() {
  local install=(--fix-broken --no-install-recommends install "$@")
  # Package lists may be missing or older than the mirror: look at once, and again if something is gone.
  if package_lists 1 && apt "${install[@]}"; then
    return
  fi
  apt update && apt "${install[@]}"
}

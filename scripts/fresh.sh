#!/usr/bin/env bash
# Proves the README's two commands in a minimal Debian that this script makes itself.
#
#     sudo scripts/fresh.sh [--only demo|test] [--folder DIR] [--suite NAME]
#
# The new root holds Debian's python3, python3-venv, git, make and ca-certificates, and a clone of HEAD: no node, no
# browser, nothing of this machine but its way to the package registries (mirrors, proxies, certificates).
# `make demo` passes if the printed link opens, the notebook runs in a kernel of its server and Ctrl-C ends it;
# `make test` passes if it ends with status 0. Everything they print is in fresh.log.
#
#   --only    one of the two commands
#   --folder  work there and keep it; a root that is there is used again (default: a temporary folder)
#   --suite   the Debian release (default: this machine's, or stable)
set -euo pipefail

checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
log="${checkout}/fresh.log"
prerequisites="ca-certificates,git,make,python3,python3-venv"
bundle=/etc/ssl/certs/ca-certificates.crt
demo_minutes=20

say() { echo "$(date +%H:%M:%S) $*" | tee -a "${log}"; }

fail() {
  echo "$*" >&2
  exit 2
}

# --- outside: a mount and a process namespace, so that no mount and no process can outlive this script ------------------

folder="" keep="" inner=""

clean_up() {
  [[ -z "${inner}" ]] || { kill -KILL "${inner}" && wait "${inner}"; } 2> /dev/null || true
  [[ -n "${keep}" ]] || rm -rf --one-file-system "${folder}"
}

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
}

outside() {
  local only="" suite=""
  while (($#)); do
    case "$1" in
      --only) only="${2:-}" ;;
      --folder) folder="${2:-}" keep=yes ;;
      --suite) suite="${2:-}" ;;
      -h | --help) usage && exit 0 ;;
      *) usage >&2 && exit 2 ;;
    esac
    shift 2 || fail "an option lacks its value"
  done
  [[ "${only}" =~ ^(demo|test|)$ ]] || fail "--only demo or --only test"
  ((EUID == 0)) || fail "A Debian root can be made by root only: sudo make fresh"
  for program in debootstrap git unshare; do
    command -v "${program}" > /dev/null || fail "${program} is missing: apt-get install debootstrap git util-linux"
  done
  unshare --mount --pid --fork true || fail "this machine allows no namespaces (in a container: run it privileged)"

  : > "${log}"
  if [[ -n "${keep}" ]]; then
    mkdir -p "${folder}"
  else
    folder="$(mktemp -d /var/tmp/ebus-fresh.XXXXXX)"
  fi
  folder="$(cd "${folder}" && pwd)"
  [[ -z "$(git -C "${checkout}" status --porcelain)" ]] || say "Uncommitted changes are left out: HEAD is what is cloned."

  trap clean_up EXIT
  trap 'exit 130' INT TERM HUP
  unshare --mount --pid --fork --kill-child "${BASH_SOURCE[0]}" --inside "${folder}/root" "${only}" "${suite}" &
  inner=$!
  local status=0
  wait "${inner}" || status=$?
  inner=""
  exit "${status}"
}

# --- inside -----------------------------------------------------------------------------------------------------------

# Lines "URI release component" of this machine's own Debian archives.
debian_archives() {
  command -v apt-get > /dev/null || return 0
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u
}

make_root() {
  local root="$1" suite="$2" mirror=""
  if [[ -z "${suite}" ]]; then
    suite="$(debian_archives | awk '$3 == "main" && $2 !~ /-|\// { print $2; exit }')"
  fi
  suite="${suite:-stable}"
  mirror="$(debian_archives | awk -v suite="${suite}" '$3 == "main" && $2 == suite { print $1; exit }')"
  say "Making a Debian ${suite} with ${prerequisites//,/, } …"
  # shellcheck disable=SC2086
  debootstrap --variant=minbase --include="${prerequisites}" "${suite}" "${root}.new" ${mirror} >> "${log}" 2>&1 ||
    { tail -n 20 "${log}" && fail "debootstrap failed; see ${log}"; }
  mv "${root}.new" "${root}"
}

mount_what_programs_need() {
  local root="$1"
  mountpoint -q "${root}/proc" || mount -t proc proc "${root}/proc"
  mountpoint -q "${root}/sys" || mount -t sysfs -o ro sysfs "${root}/sys"
  mkdir -p "${root}/dev/shm" "${root}/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "${root}/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "${root}/dev/pts"
  ln -sf pts/ptmx "${root}/dev/ptmx"
}

# This machine's way to the registries: whatever it is, it is read here and written into the root only.
copy_registry_settings() {
  local root="$1" archives file key value
  cp -L /etc/resolv.conf /etc/hosts "${root}/etc/"
  [[ ! -f "${bundle}" ]] || cp -L "${bundle}" "${root}${bundle}"

  archives="$(debian_archives)"
  if [[ -n "${archives}" ]]; then
    sed 's/^/deb /' <<< "${archives}" > "${root}/etc/apt/sources.list"
  fi
  if command -v apt-config > /dev/null; then
    apt-config dump | grep -E '^Acquire::(https?::|Check-|Retries|ForceIPv)' > "${root}/etc/apt/apt.conf.d/90machine" || true
  fi

  # Not pip's links and indexes on this machine's disk: they are no way to a registry.
  echo "[global]" > "${root}/etc/pip.conf"
  if command -v pip > /dev/null; then
    pip config list 2> /dev/null | while IFS='=' read -r key value; do
      key="${key##*.}" value="${value#\'}" value="${value%\'}"
      [[ "${key}" =~ ^(index-url|extra-index-url|proxy|trusted-host|default-timeout)$ && "${value}" != *file:* ]] || continue
      echo "${key} = ${value}" >> "${root}/etc/pip.conf"
    done
  fi
  for file in /etc/uv/uv.toml "${HOME}/.config/uv/uv.toml"; do
    [[ ! -f "${file}" ]] || install -D "${file}" "${root}/etc/uv/uv.toml"
  done
  for file in /usr/etc/npmrc /etc/npmrc "${HOME}/.npmrc"; do
    [[ ! -f "${file}" ]] || grep -E '^(registry|https?-proxy|proxy|noproxy|strict-ssl|//|@[^:]+:registry)' "${file}" || true
  done > "${root}/root/.npmrc"
}

# Runs a command in the clone, with an environment that holds nothing of this machine's but proxies and registries.
in_root() {
  local root="$1" name settings=()
  shift
  for name in $(compgen -e); do
    [[ "${name,,}" =~ ^(https?_proxy|no_proxy|all_proxy|pip_index_url|uv_default_index|uv_index_url|npm_config_registry)$ ]] ||
      continue
    settings+=("${name}=${!name}")
  done
  if [[ -f "${bundle}" ]]; then
    settings+=("SSL_CERT_FILE=${bundle}" "PIP_CERT=${bundle}" "NODE_EXTRA_CA_CERTS=${bundle}")
  fi
  # A background command ignores SIGINT, and Python leaves it ignored.
  env -i --default-signal=INT "${settings[@]}" HOME=/root LANG=C.UTF-8 TERM=dumb \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "${root}" /bin/sh -c 'cd /root/ebus_jupyter && exec "$@"' sh "$@"
}

try_demo() {
  local root="$1" demo="" link="" output="$1/root/demo.log"
  : > "${output}"
  set -m # a process group of its own, as in a terminal
  in_root "${root}" make demo > "${output}" 2>&1 &
  demo=$!
  set +m
  for ((tries = demo_minutes * 60; tries > 0; tries--)); do
    link="$(grep -oE 'http://127\.0\.0\.1:[0-9]+/lab/tree/\S+\?token=\S+' "${output}" || true)"
    [[ -z "${link}" ]] || break
    kill -0 "${demo}" 2> /dev/null || break
    sleep 1
  done
  local status=0
  if [[ -z "${link}" ]]; then
    say "make demo printed no link"
    status=1
  else
    in_root "${root}" .venv/bin/python scripts/fresh_demo.py "${link}" 2>&1 | tee -a "${log}" || status=1
  fi
  kill -INT -- "-${demo}" 2> /dev/null || true
  for ((tries = 30; tries > 0; tries--)); do
    kill -0 "${demo}" 2> /dev/null || break
    sleep 1
  done
  if kill -KILL -- "-${demo}" 2> /dev/null; then
    say "make demo did not stop within 30 s of Ctrl-C"
    status=1
  fi
  wait "${demo}" 2> /dev/null || true
  cat "${output}" >> "${log}"
  return "${status}"
}

try_test() {
  in_root "$1" make test >> "${log}" 2>&1
}

inside() {
  local root="$1" only="$2" suite="$3" status=0 began name
  trap 'exit 130' INT TERM
  [[ -d "${root}" ]] || make_root "${root}" "${suite}"
  mount_what_programs_need "${root}"
  copy_registry_settings "${root}"
  rm -rf "${root}/root/ebus_jupyter"
  git -c safe.directory='*' clone --quiet --no-hardlinks "${checkout}" "${root}/root/ebus_jupyter"
  say "In it: $(chroot "${root}" python3 --version), commit $(git -C "${root}/root/ebus_jupyter" log -1 --format='%h %s')"
  for name in demo test; do
    [[ -z "${only}" || "${only}" == "${name}" ]] || continue
    say "Running make ${name} …"
    began="${SECONDS}"
    if "try_${name}" "${root}"; then
      say "PASS make ${name} ($((SECONDS - began)) s)"
    else
      status=1
      tail -n 40 "${log}"
      say "FAIL make ${name} ($((SECONDS - began)) s); everything it printed is in ${log}"
    fi
  done
  exit "${status}"
}

if [[ "${1:-}" == --inside ]]; then
  inside "${@:2}"
else
  outside "$@"
fi

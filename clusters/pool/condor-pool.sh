#!/usr/bin/env bash
# condor-pool.sh up|env|status|down|purge|install: a real HTCondor pool on one machine (master, collector, negotiator,
# schedd, startd: version 23.9 of Debian trixie). It needs a Linux with apt and Debian's keyring, and changes nothing of
# the host: no package, no user, no file of the system, no systemd, no docker.
#
# The program: apt, with lists, cache and status of its own, fetches condor with all its libraries; dpkg-deb unpacks
# them below PREFIX, and patchelf points condor's executables at the loader and the libraries there. So daemons run on
# trixie's glibc; jobs run on the host as it is, with the host's Python.
# Who runs it: a user runs his pool as himself. Condor never runs jobs as root, so for root the daemons live in a user
# namespace in which root is called "daemon": seen from the host, processes and files of the pool and of its jobs are
# root's. Where namespaces are forbidden (docker) they run as user "daemon" with capabilities for files instead.
#
# Knobs, all of the environment; what is unset has its default or, when the pool is up already, stays as it is:
#   CONDOR_POOL_DIR     configuration and state of one pool (~/.local/state/cygnoreco/pool); a pool a folder
#   CONDOR_POOL_PREFIX  the installed program, shared by all pools (~/.cache/cygnoreco/condor)
#   CONDOR_POOL_PORT    on 127.0.0.1 (0: a free one)
#   CONDOR_POOL_CPUS    what jobs may ask for (as many as this process may use); CONDOR_POOL_MEMORY in MB (3/4 of all)
#   CONDOR_POOL_EXTRA   a file with more lines for the configuration
#   CONDOR_POOL_USERNS  0: no namespace for root;  DEBIAN_MIRROR (the one of the host's apt)
# Exit codes: 0 done; 1 it may work if tried again; 2 the caller can mend it; 3 from status: the pool is down.
set -euo pipefail
say() { echo "condor-pool: $*" >&2; }
die() { say "$*"; exit 1; }
refuse() { say "$*"; exit 2; }

D=$(realpath -m -- "${CONDOR_POOL_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/cygnoreco/pool}")
PREFIX=$(realpath -m -- "${CONDOR_POOL_PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/cygnoreco/condor}")
P=$PREFIX/root B=$PREFIX/bin S=$D/state
PORT=${CONDOR_POOL_PORT:-0} CPUS=${CONDOR_POOL_CPUS:-} MEM=${CONDOR_POOL_MEMORY:-} EXTRA=${CONDOR_POOL_EXTRA:-}
# Settings of another pool, whose job this shell may be, are not for ours; its marks, by which it finds us, stay.
for v in "${!_CONDOR_@}" "${!CONDOR_INHERIT@}" "${!CONDOR_PRIVATE@}"; do
  [[ $v == _CONDOR_ANCESTOR_* ]] || unset "$v"
done
export CONDOR_CONFIG=$D/condor_config

writable() {                             # writable FOLDER KNOB: make it if need be
  { mkdir -p "$1" && [ -w "$1" ]; } 2> /dev/null || refuse "$1: cannot be written; $2 names another folder"
}

install() {                              # idempotent: $PREFIX/ok exists only when everything is in place
  [ ! -e "$PREFIX/ok" ] || return 0
  writable "$PREFIX" CONDOR_POOL_PREFIX
  exec 8> "$PREFIX/lock"; flock -w 900 8 || die "$PREFIX: another installation has not ended for 15 minutes"
  [ ! -e "$PREFIX/ok" ] || return 0      # that other one has done it
  { command -v apt-get && command -v dpkg-deb; } > /dev/null ||
    refuse "no apt-get or no dpkg-deb, which fetch condor: a Debian or a relative of it is needed"
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg A=$PREFIX/apt mirror f o ld libs
  # shellcheck disable=SC2016 # apt's own variables
  mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2> /dev/null |
    awk '$1 == "Debian" && $2 !~ /security/ && !found++ {print $2}')}
  [ -n "$mirror" ] || refuse "no Debian mirror among the sources of apt: set DEBIAN_MIRROR to the URL of one"
  [ -r "$keyring" ] || refuse "no $keyring: install the package debian-archive-keyring"
  say "fetching condor to $PREFIX"
  rm -rf "$A" "$P" "$B"; mkdir -p "$A"/{lists,cache/archives}/partial "$P" "$B"
  echo "deb [signed-by=$keyring] $mirror trixie main" > "$A/sources.list"; : > "$A/status"
  o=(-q -y -o Dir::Etc::sourcelist="$A/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$A/lists"
    -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=- -o APT::Default-Release= -o Dir::Cache="$A/cache"
    -o Dir::State::status="$A/status" -o Dir::State::extended_states="$A/ext" -o APT::Sandbox::User=
    -o Debug::NoLocking=1 -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=20
    -o APT::Update::Error-Mode=any)
  { apt-get "${o[@]}" update && apt-get "${o[@]}" -d --no-install-recommends install condor patchelf; } \
    > "$PREFIX/apt.log" 2>&1 || { grep '^[EW]:' "$PREFIX/apt.log" | tail -n3 >&2 || true
      die "apt could not fetch condor; all that it said: $PREFIX/apt.log"; }
  find "$A/cache/archives" -name '*.deb' | grep -E '/(lib|zlib|condor_|patchelf_)' | grep -v /libperl |
    xargs -P"$(nproc)" -I{} dpkg-deb -x {} "$P" || die "$PREFIX: condor could not be unpacked; is the disk full?"
  ld=$(find "$P"/usr/lib* -name 'ld-linux-*.so.*' | sort | tail -n1) libs=$(echo "$P"/usr/lib/*-linux-gnu):$P/usr/lib
  for f in "$P"/usr/{bin,sbin,libexec/condor}/*; do
    if [[ ! -f $f || -L $f || $f == *.so || $f == */patchelf ]] || ! head -c4 "$f" | grep -q ELF; then continue; fi
    "$ld" --library-path "$libs" "$P/usr/bin/patchelf" --set-interpreter "$ld" --force-rpath --set-rpath "$libs" "$f"
  done
  for f in "$P"/usr/{bin,sbin}/condor_*; do ln -s "$f" "$B/"; done   # nothing but condor_*: PATH shadows nothing else
  "$B/condor_version" > "$PREFIX/ok.new" && mv "$PREFIX/ok.new" "$PREFIX/ok" && rm -rf "$A"
}

number() {                               # number NAME VALUE LEAST MOST; empty means unset
  [[ -z $2 || ($2 =~ ^(0|[1-9][0-9]{0,8})$ && $2 -ge $3 && $2 -le $4) ]] ||
    refuse "$1=$2: a whole number from $3 to $4 is needed"
}

known() { [ -e "$D/pool.lock" ] || refuse "$D: no pool here; 'up' makes one"; }

lock() {                                 # one up, down or purge of a folder at a time; again, if a purge took the file
  until [ "$D/pool.lock" -ef /dev/fd/9 ]; do
    writable "$D" CONDOR_POOL_DIR
    exec 9>> "$D/pool.lock"; flock -w 300 9 || die "$D: another up or down has not ended for 5 minutes"
  done
}

config() {                               # a clean queue every time; " ; " below stands for a new line
  rm -rf "$S"; mkdir -p "$S"/{log,spool,execute,lock,run,tokens}
  printf 'FS root daemon\nFS (.*) \\1\n' > "$D/mapfile"       # only matters without a user namespace
  sed 's/ ; /\n/g' > "$CONDOR_CONFIG" <<C
RELEASE_DIR = $P/usr ; BIN = $P/usr/bin ; SBIN = $P/usr/sbin ; LIB = $P/usr/lib/condor ; LIBEXEC = $P/usr/libexec/condor
LOCAL_DIR = $S ; LOG = $S/log ; SPOOL = $S/spool ; EXECUTE = $S/execute ; LOCK = $S/lock ; RUN = $S/run
# nothing from the host's or the user's own files
LOCAL_CONFIG_FILE = ; LOCAL_CONFIG_DIR = ; USER_CONFIG_FILE =
SEC_PASSWORD_DIRECTORY = $S/tokens ; SEC_TOKEN_SYSTEM_DIRECTORY = $S/tokens ; SEC_KNOWN_HOSTS = $S/tokens/known_hosts
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD
CONDOR_HOST = 127.0.0.1 ; COLLECTOR_HOST = 127.0.0.1:$PORT ; SHARED_PORT_PORT = $PORT
NETWORK_INTERFACE = 127.0.0.1 ; BIND_ALL_INTERFACES = False ; ENABLE_IPV6 = False ; NO_DNS = True
DEFAULT_DOMAIN_NAME = condor.test ; UID_DOMAIN = condor.test ; FILESYSTEM_DOMAIN = condor.test
# root's clients (outside of the namespace) want a "condor" user without this; the daemons ignore it
CONDOR_IDS = 0.0
# a condor_master that is root rewrites the host's sysctls (pid_max, port range, dirty_bytes ...)
ENABLE_KERNEL_TUNING = False
SEC_DEFAULT_AUTHENTICATION = REQUIRED ; SEC_DEFAULT_AUTHENTICATION_METHODS = FS ; CERTIFICATE_MAPFILE = $D/mapfile
# clients of 25.x (PyPI's htcondor) else refuse the FS handshake of an older server
SEC_FS_ENFORCE_CHANNEL_BINDING = False
ALLOW_READ = *@condor.test ; ALLOW_WRITE = *@condor.test ; ALLOW_DAEMON = *@condor.test
ALLOW_NEGOTIATOR = *@condor.test ; ALLOW_ADMINISTRATOR = *@condor.test
NUM_CPUS = $CPUS ; MEMORY = $MEM
# by this we know that the pool that answers is the one of this folder
PoolFolder = "$D" ; STARTD_ATTRS = \$(STARTD_ATTRS) PoolFolder
# quick on one machine: the defaults suit pools of thousands
NEGOTIATOR_INTERVAL = 2 ; NEGOTIATOR_MIN_INTERVAL = 1 ; NEGOTIATOR_CYCLE_DELAY = 1 ; SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1 ; UPDATE_INTERVAL = 5 ; STARTER_UPDATE_INTERVAL = 5 ; SHADOW_QUEUE_UPDATE_INTERVAL = 5
PERIODIC_EXPR_INTERVAL = 5 ; RUNBENCHMARKS = 0 ; SHUTDOWN_FAST_TIMEOUT = 5
CONDOR_DEVELOPERS = NONE ; CONDOR_DEVELOPERS_COLLECTOR = NONE ; MAIL = /bin/true
# extra
C
  [ -z "$EXTRA" ] || cat -- "$EXTRA" >> "$CONDOR_CONFIG"
}

setting() { sed -n "s/^$1 = //p;/^# extra$/q" "$CONDOR_CONFIG" 2> /dev/null; }
master() {                               # our master's pid, if it is alive and really ours
  local m; m=$(cat "$D/master.pid" 2> /dev/null) && [[ $(readlink "/proc/$m/exe") == */condor_master ]] &&
    grep -qszxF "CONDOR_CONFIG=$CONDOR_CONFIG" "/proc/$m/environ" && echo "$m"
}
# What was started under master $1, jobs as well: it carries condor's mark of its ancestor and names this folder.
offspring() {
  { grep -lsz "^_CONDOR_ANCESTOR_$1=" /proc/[0-9]*/environ | xargs -r grep -lsF "=$D/" | cut -d/ -f3; } || true
}
ready() { { "$B/condor_status" -af PoolFolder | grep -xF "$D" && "$B/condor_q" -all; } > /dev/null 2>&1; }
answers() {                              # answers SECONDS: wait for that, as long as the master lives
  local m; m=$(cat "$D/master.pid" 2> /dev/null) || true
  for _ in $(seq $((4 * $1))); do ready && return; kill -0 "$m" 2> /dev/null || break; sleep .25; done; return 1
}
taken() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

same() {                                 # what was asked for in words is what is up
  local pair
  for pair in "SHARED_PORT_PORT=${PORT#0}" "NUM_CPUS=$CPUS" "MEMORY=$MEM"; do
    [ -z "${pair#*=}" ] || [ "$(setting "${pair%%=*}")" = "${pair#*=}" ] ||
      refuse "$D: its pool is up with ${pair%%=*} = $(setting "${pair%%=*}"), not ${pair#*=}; take it down first"
  done
  [ -z "$EXTRA" ] || sed '1,/^# extra$/d' "$CONDOR_CONFIG" | cmp -s - "$EXTRA" ||
    refuse "$D: its pool is up without the lines of $EXTRA; take it down first"
}

up() {
  local as=() u g caps=+dac_override,+dac_read_search,+fowner there said
  [[ $D$PREFIX != *[[:space:]\"\$\\]* ]] ||
    refuse "$D, $PREFIX: HTCondor wants names of folders without spaces, quotes, dollars and backslashes"
  number CONDOR_POOL_PORT "$PORT" 0 65535
  number CONDOR_POOL_CPUS "$CPUS" 1 9999; number CONDOR_POOL_MEMORY "$MEM" 1 99999999
  [ -z "$EXTRA" ] || [ -r "$EXTRA" ] || refuse "CONDOR_POOL_EXTRA=$EXTRA: no such file"
  there=$(ls -A "$D" 2> /dev/null) || true
  [[ -z $there || $'\n'$there$'\n' == *$'\npool.lock\n'* ]] ||
    refuse "$D: there are other things in this folder; an empty or a new one is needed"
  lock; install
  if master > /dev/null; then            # whoever asks for a pool that is up does not want his queue to be cleared
    answers 10 || die "$D: its pool is up but does not answer; look at $S/log, or take it down first"
    same; say "already up on port $(setting SHARED_PORT_PORT)"; return
  fi
  halt
  if [ "$PORT" = 0 ]; then               # below the ports that the system gives to whoever asks for any
    until PORT=$((20000 + RANDOM % 12000)) && ! taken "$PORT"; do :; done
  elif taken "$PORT"; then refuse "port $PORT is taken; CONDOR_POOL_PORT=0 finds a free one"; fi
  CPUS=${CPUS:-$(nproc)} MEM=${MEM:-$(awk '/^MemTotal/ {print int($2 * 3 / 4 / 1024)}' /proc/meminfo)}
  config
  said=$("$B/condor_config_val" LOCAL_DIR 2>&1 > /dev/null) ||
    refuse "the configuration with the lines of '$EXTRA' is wrong: $said"
  if [ "$(id -u)" = 0 ]; then u=$(id -u daemon) g=$(id -g daemon)
    as=(unshare --user --map-user="$u" --map-group="$g")
    if [ "${CONDOR_POOL_USERNS:-1}" = 0 ] || ! "${as[@]}" true 2> /dev/null; then chown -R "$u:$g" "$S"
      # condor asks access(2), which forgets the capabilities of whoever is not root, unless that is forbidden
      as=(setpriv --securebits=+no_setuid_fixup --reuid="$u" --regid="$g" --clear-groups
        --inh-caps="$caps" --ambient-caps="$caps"); fi
  fi
  # The number is written before the program begins, so that no master is ever unknown; it must not keep our locks.
  (echo "$BASHPID" > "$D/master.pid"; cd / && exec setsid "${as[@]}" "$P/usr/sbin/condor_master" -f \
    < /dev/null > "$S/log/master.out" 2>&1 8>&- 9>&-) &
  echo $! > "$D/master.pid"              # the same, should that shell not have come so far yet
  if answers 60; then say "up on port $PORT: $(head -n1 "$PREFIX/ok")"; return; fi
  tail -qn5 "$S"/log/{master.out,MasterLog} >&2 2> /dev/null || true; halt
  die "$D: the pool did not come up; its logs: $S/log"
}

halt() {                                 # our master (fast shutdown), then anything started under it and left behind
  local m p; m=$(cat "$D/master.pid" 2> /dev/null) || return 0
  if master > /dev/null; then kill -QUIT "$m" || true; fi
  for _ in $(seq 100); do master > /dev/null || break; sleep .1; done
  for _ in $(seq 30); do
    mapfile -t p < <(master || true; offspring "$m")
    [ ${#p[@]} -gt 0 ] || { rm -f "$D/master.pid"; return 0; }
    kill -9 "${p[@]}" 2> /dev/null || true; sleep .1
  done
  die "$D: processes of this pool that cannot be ended: ${p[*]}"
}

case ${1:-} in
  install) install ;;
  up) up ;;
  env) known; printf 'export CONDOR_CONFIG=%q CONDOR_POOL_ADDRESS=%s PATH=%q:%s\n' \
    "$CONDOR_CONFIG" "127.0.0.1:$(setting SHARED_PORT_PORT)" "$B" "\"\$PATH\"" ;;
  status) known; if ! master > /dev/null; then say "$D: the pool is down"; exit 3; fi
    if ! ready; then say "$D: the pool does not answer"; exit 3; fi; say "up on port $(setting SHARED_PORT_PORT)" ;;
  down) known; lock; halt ;;
  purge) known; lock; halt                # nothing but what is ours
    rm -rf "$S" "$CONDOR_CONFIG" "$D"/{mapfile,pool.lock}; rmdir --ignore-fail-on-non-empty "$D" ;;
  *) refuse "usage: $0 up|env|status|down|purge|install" ;;
esac

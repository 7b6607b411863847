#!/usr/bin/env bash
# rgw.sh up|env|status|down|purge|install: a real S3 server on one machine, Ceph's RADOS gateway (one monitor, one OSD
# on a sparse file, one gateway, no manager; version 16.2 of Debian bookworm). It needs a Linux with apt and Debian's
# keyring, and changes nothing of the host: no package, no user, no file of the system, no systemd, no docker. Any user
# may run it.
#
# The program: apt, with lists and status of its own, fetches Ceph with all its libraries, and dpkg-deb unpacks them
# below CEPH_PREFIX. Programs are started by the loader of that C library, so that none of the host's libraries is used.
# One cluster: what "down" ends "up" starts again, with the same address, keys and objects; it also starts a daemon that
# was killed. Everything listens on 127.0.0.1 alone. It begins in two seconds because of the lines marked "quick" below.
#
# Knobs, all of the environment:
#   RGW_DIR      configuration, keys and objects of one cluster (~/.local/state/cygnoreco/rgw); a cluster a folder
#   RGW_PORT     on 127.0.0.1 (0, or a cluster that was made already: the one in its folder, or a free one)
#   CEPH_PREFIX  the installed program, shared by all clusters (~/.cache/cygnoreco/ceph)
#   CEPH_SUITE   Debian's name of the release it comes from (bookworm: Ceph 16.2; trixie: 18.2)
#   DEBIAN_MIRROR (the one of the host's apt)
# Exit codes: 0 done; 1 it may work if tried again; 2 the caller can mend it; 3 from status: the cluster is down.
set -euo pipefail
say() { echo "rgw: $*" >&2; }
die() { say "$*"; exit 1; }
refuse() { say "$*"; exit 2; }

D=$(realpath -m -- "${RGW_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/cygnoreco/rgw}")
SUITE=${CEPH_SUITE:-bookworm} PORT=${RGW_PORT:-0}
P=$(realpath -m -- "${CEPH_PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/cygnoreco/ceph}")/$SUITE R=$P/root
PROGRAMS=(ceph-authtool ceph-mon ceph-osd monmaptool osdmaptool radosgw radosgw-admin)
unset CEPH_ARGS                          # of another cluster, which somebody works with
export CEPH_CONF=$D/ceph.conf            # and by this in their environment we know our daemons

writable() {                             # writable FOLDER KNOB: make it if need be
  { mkdir -p "$1" && [ -w "$1" ]; } 2> /dev/null || refuse "$1: cannot be written; $2 names another folder"
}

install() {                              # idempotent: $P/ok exists only when everything is in place
  [ ! -e "$P/ok" ] || return 0
  [[ $SUITE =~ ^[a-z]+$ ]] || refuse "CEPH_SUITE=$SUITE: the name of a release of Debian is needed"
  writable "$P" CEPH_PREFIX
  exec 8> "$P/lock"; flock -w 900 8 || die "$P: another installation has not ended for 15 minutes"
  [ ! -e "$P/ok" ] || return 0           # that other one has done it
  { command -v apt-get && command -v dpkg-deb; } > /dev/null ||
    refuse "no apt-get or no dpkg-deb, which fetch Ceph: a Debian or a relative of it is needed"
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg A=$P/apt mirror o p
  # shellcheck disable=SC2016 # apt's own variables
  mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2> /dev/null |
    awk '$1 == "Debian" && $2 !~ /security/ && !found++ {print $2}')}
  [ -n "$mirror" ] || refuse "no Debian mirror among the sources of apt: set DEBIAN_MIRROR to the URL of one"
  [ -r "$keyring" ] || refuse "no $keyring: install the package debian-archive-keyring"
  say "fetching Ceph to $P"
  rm -rf "$A" "$R"; mkdir -p "$A"/{lists/partial,cache/archives/partial,debs} "$R"
  echo "deb [signed-by=$keyring] $mirror $SUITE main" > "$A/sources.list"; : > "$A/status"
  o=(-q -y -o Dir::Etc="$A" -o Dir::State::Lists="$A/lists" -o APT::Default-Release= -o Dir::Cache="$A/cache"
    -o Dir::State::status="$A/status" -o Dir::State::extended_states="$A/ext" -o APT::Sandbox::User=
    -o Debug::NoLocking=1 -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=20
    -o APT::Update::Error-Mode=any)
  # Of all that Ceph depends on, only libraries are fetched: no Python, no Perl, no tools for disks.
  { apt-get "${o[@]}" update && apt-get "${o[@]}" -s --no-install-recommends install radosgw ceph-mon ceph-osd \
    > "$A/plan" && cd "$A/debs" && awk '/^Inst/ {print $2}' "$A/plan" |
    grep -E '^(lib|zlib1g|radosgw|ceph-(base|common|mon|osd)$)' | grep -vE 'perl|python|binutils' |
    xargs apt-get "${o[@]}" download; } > "$P/apt.log" 2>&1 || { grep '^[EW]:' "$P/apt.log" | tail -n3 >&2 || true
      die "apt could not fetch Ceph; all that it said: $P/apt.log"; }
  find "$A/debs" -name '*.deb' -print0 | xargs -0 -P"$(nproc)" -I{} dpkg-deb -x {} "$R" ||
    die "$P: Ceph could not be unpacked; is the disk full?"
  rm -rf "${R:?}"/{etc,var,usr/share,usr/sbin}        # half of it is of no use here
  find "$R/usr/bin" ! -type d | grep -vE "/($(IFS='|'; echo "${PROGRAMS[*]}"))\$" | tr '\n' '\0' | xargs -0 rm -f
  loader
  for p in "${PROGRAMS[@]}"; do ceph "$p" --version > "$P/ok.new"; done
  mv "$P/ok.new" "$P/ok" && rm -rf "$A"
}

loader() {                               # where the unpacked C library begins, and all folders with libraries
  LD=$(find "$R" -path '*-linux-gnu/ld-linux-*.so.*' 2> /dev/null | head -n1) L=$(echo "$R"/usr/lib/*-linux-gnu)
  LIBS=${LD%/*}:$L:$L/ceph
}
ceph() { "$LD" --library-path "$LIBS" "$R/usr/bin/$1" "${@:2}"; }
version() { awk '{print $3; exit}' "$P/ok"; }

known() { [ -e "$D/rgw.lock" ] || refuse "$D: no cluster here; 'up' makes one"; }

lock() {                                 # one up, down or purge of a folder at a time; again, if a purge took the file
  until [ "$D/rgw.lock" -ef /dev/fd/9 ]; do
    writable "$D" RGW_DIR
    exec 9>> "$D/rgw.lock"; flock -w 300 9 || die "$D: another up or down has not ended for 5 minutes"
  done
}

setting() { sed -n "s/^$1 = //p" "$CEPH_CONF" 2> /dev/null; }
endpoint() { setting rgw_frontends | sed -n 's/.*endpoint=\([^ ]*\).*/\1/p'; }
alive() {                                # process number of our mon, osd or rgw, if it is alive and really ours
  local p; p=$(cat "$D/$1.pid" 2> /dev/null) && grep -qszxF "CEPH_CONF=$CEPH_CONF" "/proc/$p/environ" && echo "$p"
}
taken() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }
ready() {                                # a list of nobody's buckets
  local said
  # shellcheck disable=SC2016 # the inner shell's
  said=$(timeout 5 bash -c 'exec 3<> "/dev/tcp/${0/://}" && printf "GET / HTTP/1.0\r\n\r\n" >&3 && head -n1 <&3' \
    "$(endpoint)" 2> /dev/null) && [[ $said == HTTP/1.*" 200"* ]]
}
answers() {                              # answers SECONDS: wait for that, as long as all three live
  local end=$((SECONDS + $1))
  while [ $SECONDS -lt $end ]; do
    if ! { alive mon && alive osd && alive rgw; } > /dev/null; then return 1; fi
    ready && return; sleep .05
  done; return 1
}

config() {                               # config MONITOR'S-PORT; " ; " below stands for a new line
  sed 's/ ; /\n/g' > "$CEPH_CONF" <<C
[global]
fsid = $(< /proc/sys/kernel/random/uuid) ; mon_host = [v2:127.0.0.1:$1/0] ; ms_bind_msgr1 = false
public_addr = 127.0.0.1 ; cluster_addr = 127.0.0.1 ; keyring = $D/keyring
mon_data = $D/mon ; osd_data = $D/osd ; rgw_data = $D ; run_dir = $D ; crash_dir = $D/log ; log_file = $D/log/\$name.log
plugin_dir = $L/ceph ; erasure_code_dir = $L/ceph/erasure-code ; osd_class_dir = $L/rados-classes
# sockets of the system want short names of folders
admin_socket =
# one of everything
osd_pool_default_size = 1 ; osd_pool_default_min_size = 1 ; mon_allow_pool_size_one = true
osd_pool_default_pg_num = 1 ; osd_pool_default_pgp_num = 1 ; osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0 ; osd_crush_update_on_start = false
mon_warn_on_pool_no_redundancy = false ; mon_cluster_log_to_file = false
# else a monitor ends itself where the disk of the host is nearly full
mon_data_avail_crit = 0
# quick: the defaults wait a second for more changes, 5 s for a new map, and .3 s whenever a file is closed
paxos_propose_interval = 0.02 ; paxos_min_wait = 0.01 ; objecter_tick_interval = 0.2 ; bdev_aio_poll_ms = 10
bluestore_fsck_on_mkfs = false ; osd_op_queue = wpq
# quick: who makes a bucket waits so long for a gateway that was killed to hear of it; by default 30 s
osd_client_watch_timeout = 2
# small
bluestore_block_size = 8589934592 ; bluestore_cache_autotune = false ; bluestore_cache_size = 33554432
bluestore_rocksdb_options = compression=kNoCompression,max_write_buffer_number=4,write_buffer_size=8388608
osd_memory_target = 939524096 ; debug_osd = 0 ; debug_rocksdb = 0 ; debug_bluestore = 0 ; debug_bluefs = 0
[client.rgw]
# without "nodelay" every list takes 40 ms
rgw_frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw_thread_pool_size = 64 ; rgw_enable_usage_log = false ; rgw_enable_ops_log = false ; rgw_enable_quota_threads = false
rgw_enable_lc_threads = false ; rgw_run_sync_thread = false ; rgw_dynamic_resharding = false
# what was deleted keeps its place for seconds, not hours
rgw_gc_obj_min_wait = 5 ; rgw_gc_processor_period = 5 ; rgw_gc_processor_max_time = 5
C
}

make() {                                 # an empty cluster; $D/keys exists only when that is done
  local mon
  rm -rf "$D"/{mon,osd,log,keyring,monmap,osdmap}; mkdir "$D"/{mon,osd,log}
  # below the ports that the system gives to whoever asks for any
  until mon=$((20000 + RANDOM % 12000)) && ! taken "$mon"; do :; done
  if [ "$PORT" = 0 ]; then
    until PORT=$((20000 + RANDOM % 12000)) && [ "$PORT" != "$mon" ] && ! taken "$PORT"; do :; done
  fi
  config "$mon"
  # A map with the OSD in it from the beginning spares "ceph osd new", and the Python that this command is made of.
  { ceph ceph-authtool -C "$D/keyring" -n mon. --gen-key --cap mon 'allow *' &&
    ceph ceph-authtool "$D/keyring" -n osd.0 --gen-key --cap mon 'allow profile osd' --cap osd 'allow *' &&
    ceph ceph-authtool "$D/keyring" -n client.rgw --gen-key --cap mon 'allow *' --cap osd 'allow *' &&
    ceph monmaptool --create --fsid "$(setting fsid)" --addv a "[v2:127.0.0.1:$mon/0]" "$D/monmap" &&
    ceph osdmaptool --createsimple 1 "$D/osdmap" &&
    ceph ceph-mon --mkfs -i a --monmap "$D/monmap" --osdmap "$D/osdmap" --keyring "$D/keyring" &&
    ceph ceph-osd --mkfs -i 0 --no-mon-config --osd-uuid "$(< /proc/sys/kernel/random/uuid)"
  } > "$D/log/make.out" 2>&1 || fail
}

start() {                                # start NAME PORT PROGRAM ARGUMENT...: a daemon, unless it is alive
  ! alive "$1" > /dev/null || return 0
  if [ -n "$2" ] && taken "$2"; then refuse "port $2 is taken by another program; purge this cluster, or end that"; fi
  # The number is written before the program begins, so that no daemon is ever unknown; it must not keep our locks.
  (echo "$BASHPID" > "$D/$1.pid"; cd / && exec setsid "$LD" --library-path "$LIBS" "$R/usr/bin/$3" -f "${@:4}" \
    < /dev/null >> "$D/log/$1.out" 2>&1 8>&- 9>&-) &
  echo $! > "$D/$1.pid"                  # the same, should that shell not have come so far yet
}

keys() {                                 # the user whom the tests are, and the two words of her keys
  timeout --foreground 60 "$LD" --library-path "$LIBS" "$R/usr/bin/radosgw-admin" -n client.rgw \
    user create --uid=cygno --display-name=cygno > "$D/user.json" 2> "$D/log/user.out" || return 1
  sed -n 's/.*"\(access\|secret\)_key": "\(.*\)".*/\2/p' "$D/user.json" > "$D/keys.new"
  [ "$(wc -l < "$D/keys.new")" = 2 ] && mv "$D/keys.new" "$D/keys" && rm "$D/user.json"
}

up() {
  local there
  [[ $D$P != *[[:space:]\"\'\$\\\;\#]* ]] || refuse "$D, $P: Ceph wants names of folders without spaces and signs"
  [[ $PORT =~ ^(0|[1-9][0-9]{0,4})$ && $PORT -le 65535 ]] || refuse "RGW_PORT=$PORT: a number up to 65535 is needed"
  there=$(ls -A "$D" 2> /dev/null) || true
  [[ -z $there || $'\n'$there$'\n' == *$'\nrgw.lock\n'* ]] ||
    refuse "$D: there are other things in this folder; an empty or a new one is needed"
  lock; install; loader
  umask 077                              # keys
  if [ -e "$D/keys" ]; then
    [[ $PORT = 0 || $(endpoint) = "127.0.0.1:$PORT" ]] || refuse "$D: its cluster is at $(endpoint); purge it first"
    [ "$(setting plugin_dir)" = "$L/ceph" ] || refuse "$D: made by the Ceph of $(setting plugin_dir); purge it first"
  else
    halt
    if taken "$PORT"; then refuse "port $PORT is taken; RGW_PORT=0 finds a free one"; fi
    make
  fi
  start mon "$(setting mon_host | cut -d: -f3 | cut -d/ -f1)" ceph-mon -i a
  start osd '' ceph-osd -i 0
  [ -e "$D/keys" ] || keys || fail
  start rgw "$(endpoint | cut -d: -f2)" radosgw -n client.rgw
  answers 60 || fail
  say "up at http://$(endpoint): Ceph $(version)"
}

fail() {
  tail -qn5 "$D"/log/*.out >&2 2> /dev/null || true; halt
  die "$D: the cluster did not come up; its logs: $D/log"
}

halt() {                                 # what we started, the gateway first, because it waits for the others
  local name p
  for name in rgw osd mon; do
    p=$(alive "$name") || continue
    kill "$p" 2> /dev/null || true
    for _ in $(seq 100); do alive "$name" > /dev/null || break; sleep .05; done
    for _ in $(seq 60); do alive "$name" > /dev/null || break; kill -9 "$p" 2> /dev/null || true; sleep .05; done
    ! alive "$name" > /dev/null || die "$D: a process of this cluster that cannot be ended: $p"
  done
  rm -f "$D"/{mon,osd,rgw}.pid
}

case ${1:-} in
  install) install ;;
  up) up ;;
  env) known; [ -e "$D/keys" ] || refuse "$D: this cluster was never up"
    { read -r access && read -r secret; } < "$D/keys"
    printf 'export AWS_ENDPOINT_URL=http://%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s' \
      "$(endpoint)" "$access" "$secret"
    printf ' AWS_DEFAULT_REGION=us-east-1 RGW_VERSION=%s\n' "$(version)" ;;
  status) known
    if ! { alive mon && alive osd && alive rgw; } > /dev/null; then say "$D: the cluster is down"; exit 3; fi
    if ! ready; then say "$D: the cluster does not answer"; exit 3; fi
    say "up at http://$(endpoint): Ceph $(version)" ;;
  down) known; lock; halt ;;
  purge) known; lock; halt                # nothing but what is ours
    rm -rf "$D"/{mon,osd,log} "$D"/{ceph.conf,keyring,keys,keys.new,user.json,monmap,osdmap,rgw.lock}
    rmdir --ignore-fail-on-non-empty "$D" ;;
  *) refuse "usage: $0 up|env|status|down|purge|install" ;;
esac

# Control groups of both kinds: limits, a name with a blank, and a process in one of each hierarchy.
set -e
mkdir -p /cg/unified /cg/v1 /cg/named /cg/memory /cg/pids
on() { mount -t "$@" || echo "cgroups: $*: not here"; }
put() { echo "$2" > "$1" || echo "cgroups: $1: not here"; }
on cgroup2 cgroup2 /cg/unified
on cgroup -o none,name=lab named /cg/named
# v1 has what v2 then lacks: on some kernels the CPU's, on one memory and tasks, on others nothing.
case "$(uname -r)" in
5.10* | 6.12*) on cgroup -o cpu,cpuacct cpu /cg/v1 ;;
6.1.*) on cgroup -o memory memory /cg/memory && on cgroup -o pids pids /cg/pids ;;
esac
for controller in cpu memory pids; do put /cg/unified/cgroup.subtree_control +$controller; done
mkdir -p "/cg/unified/a/with blank" /cg/unified/a/empty /cg/named/lab
put_if() { [ ! -e "$1" ] || put "$1" "$2"; }
put_if /cg/unified/a/memory.max 64M
put_if /cg/unified/a/memory.high 32M
put_if /cg/unified/a/memory.low max
put_if /cg/unified/a/pids.max 50
put_if /cg/unified/a/cpu.weight 250
put_if /cg/unified/a/cpu.max "20000 100000"
for controller in memory pids; do put /cg/unified/a/cgroup.subtree_control +$controller; done
put_if "/cg/unified/a/with blank/memory.min" 1M
put_if "/cg/unified/a/with blank/pids.max" 7
setsid sleep 1000000 < /dev/null > /dev/null 2>&1 &
put "/cg/unified/a/with blank/cgroup.procs" $!
put /cg/named/lab/cgroup.procs $!
if [ -e /cg/v1/cpu.shares ]; then
  mkdir /cg/v1/slow
  put /cg/v1/slow/cpu.shares 512
  put /cg/v1/slow/cpu.cfs_quota_us 50000
  put /cg/v1/slow/cgroup.procs $!
fi
if [ -e /cg/memory/memory.limit_in_bytes ]; then
  mkdir /cg/memory/m /cg/memory/m/unlimited /cg/pids/p
  put /cg/memory/m/memory.limit_in_bytes 48M
  put /cg/memory/m/unlimited/cgroup.procs $!
  put /cg/pids/p/pids.max 9
  put /cg/pids/p/cgroup.procs $!
fi
# Threads of one process in groups of their own: only what can be given to threads is theirs.
mkdir -p /cg/unified/t/threads
put /cg/unified/t/threads/cgroup.type threaded

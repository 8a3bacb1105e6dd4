# Mounts that propagate in every way, and file systems with options of their own.
set -e
mkdir -p /m/shared /m/slave /m/both /m/unbindable /m/proc /m/pts /m/ram /m/huge /m/debug /m/trace
mkdir -p /m/lower /m/upper /m/merged /m/layers /m/cgroup /m/bpf /m/queue /m/readonly
on() { mount -t "$@" || echo "mounts: $*: not here"; }
on tmpfs -o size=4m,mode=750,uid=5,gid=6,nr_inodes=1000 shared /m/shared
mount --make-shared /m/shared
mount -o bind /m/shared /m/slave
mount --make-slave /m/slave
mount -o bind /m/slave /m/both
mount --make-slave /m/both
mount --make-shared /m/both
on tmpfs -o nosuid,nodev,huge=never "with blank" /m/unbindable
mount --make-unbindable /m/unbindable
on tmpfs -o ro,size=50% readonly /m/readonly
on proc -o hidepid=2,gid=7 proc /m/proc
on devpts -o mode=620,gid=5,ptmxmode=666 devpts /m/pts
on ramfs -o mode=700 ramfs /m/ram
on hugetlbfs -o pagesize=2M,size=4M,mode=1770,gid=9 hugetlbfs /m/huge
on debugfs debugfs /m/debug
on tracefs tracefs /m/trace
on cgroup2 -o nsdelegate cgroup2 /m/cgroup
on bpf -o mode=700 bpf /m/bpf
on mqueue mqueue /m/queue

# An overlay whose kernel tells its structures only in the types of its module.
set -e
mkdir -p /m/layers /m/merged
mount -t tmpfs layers /m/layers
mkdir -p /m/layers/lower1 /m/layers/lower2 /m/layers/upper /m/layers/work
mount -t overlay -o lowerdir=/m/layers/lower1:/m/layers/lower2,upperdir=/m/layers/upper,workdir=/m/layers/work,redirect_dir=on merged /m/merged

#!/usr/bin/env bash
# A peer whose network goes away while it holds a message: the daemon must notice by itself (TCP
# keepalive and user time-out, 3 s here instead of 30 and 60) and redeliver the message.
# Runs in network namespaces of its own, so it needs root; nothing outside of them is touched.
#
#   tests/hostile/half_open.sh [PATH-TO-PHPMQD]
set -euo pipefail

daemon=$(realpath "${1:-target/debug/phpmqd}")
if [[ ${HALF_OPEN_INSIDE:-} != yes ]]; then
    HALF_OPEN_INSIDE=yes exec unshare --net "$0" "$daemon"
fi

folder=$(mktemp -d)
pids=()
clean_up() {
    kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$folder"
}
trap clean_up EXIT

cat >"$folder/phpmqd.toml" <<'TOML'
[storage]
database = ""
[limits]
keepalive = "3s"
tcp_user_timeout = "3s"
[[listener]]
protocol = "beanstalk"
address = "0.0.0.0:11300"
allow_remote = true
TOML

# The far end of the cable lies in a second namespace.
unshare --net sleep 120 &
far=$!
pids+=("$far")
until [[ $(readlink "/proc/$far/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do :; done
ip link set lo up
ip link add near type veth peer name far netns "$far"
ip address add 10.90.0.1/24 dev near
ip link set near up
nsenter --target "$far" --net ip address add 10.90.0.2/24 dev far
nsenter --target "$far" --net ip link set far up

"$daemon" --config "$folder/phpmqd.toml" 2>&1 &
pids+=("$!")
until exec 4<>/dev/tcp/127.0.0.1/11300; do :; done 2>/dev/null
printf 'put 0 0 600 5\r\nhello\r\n' >&4
read -r -u 4 answer
[[ $answer == INSERTED* ]]

# The far peer reserves the message, and then its cable is cut.
mkfifo "$folder/reserved"
nsenter --target "$far" --net bash -c '
    exec 3<>/dev/tcp/10.90.0.1/11300
    printf "reserve\r\n" >&3
    read -r -u 3 answer
    echo "$answer"
    exec sleep 120' >"$folder/reserved" &
pids+=("$!")
read -r answer <"$folder/reserved"
[[ $answer == RESERVED* ]]
ip link set near down
began=$EPOCHREALTIME

printf 'reserve-with-timeout 30\r\n' >&4
read -r -u 4 answer
took_ms=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000))
echo "answer '${answer%$'\r'}' $took_ms ms after the cable was cut"
[[ $answer == RESERVED* ]] && ((took_ms < 10000))

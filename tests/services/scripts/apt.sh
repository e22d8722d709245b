# A package is fetched, installed, used and removed again.
options="-q -o APT::Update::Error-Mode=any -o Acquire::Languages=none -o Acquire::Retries=5 -o Acquire::http::Timeout=30"
export DEBIAN_FRONTEND=noninteractive
mkdir -p /var/cache/apt/archives/partial /var/cache/debconf
apt-get $options update >log 2>&1 || fail unreachable log
apt-get $options -y --no-install-recommends install hello figlet >log 2>&1 || fail install log
hello
figlet -f banner ok
dpkg-query -W -f '${Package} ${Status}\n' hello figlet
apt-get $options -y purge figlet >log 2>&1 || fail purge log
dpkg-query -W -f '${Package} ${Status}\n' hello figlet 2>&1
hash -r
command -v hello figlet

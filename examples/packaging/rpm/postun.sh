# An upgrade is a graceful restart.
if [ "$1" -ge 1 ] && [ -d /run/systemd/system ]; then
    systemctl try-restart margay.service || :
fi
if [ "$1" = 0 ]; then
    rm -rf /run/margay
fi

# $1 is how many versions remain. After a removal nobody would withdraw what the kernel and the
# neighbours still have: a shutdown does.
if [ "$1" = 0 ]; then
    if [ -S /run/margay/margay.sock ]; then
        margay stop --shutdown --message 'margay is removed' > /dev/null || :
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now margay.service || :
    fi
fi

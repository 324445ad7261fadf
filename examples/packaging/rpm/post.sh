# The folder of what may hold passwords. Only when it is new: later it is the administrator's.
if [ "$1" = 1 ]; then
    chgrp margay /etc/margay
    chmod 0750 /etc/margay
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi

getent group margay > /dev/null || groupadd --system margay
getent passwd margay > /dev/null || useradd --system --gid margay --no-create-home \
    --home-dir /nonexistent --shell /sbin/nologin --comment 'margay BGP daemon' margay
exit 0

"""What lighttpd knows: its modules and directives by name (config.md 14).

Names only, with a few that forkd reserves for itself.  With them a configuration that asks for
something forkd lacks is told so, a slip gets a suggestion, and a directive of a module that is not
listed is told from one that does not exist.
"""

from __future__ import annotations

CORE = ""
"""The "module" of the directives that are always there."""

DIRECTIVES: dict[str, str] = {
    CORE: """
        server.modules server.compat-module-load server.systemd-socket-activation server.port
        server.bind server.network-backend server.chroot server.username server.groupname
        server.errorlog-use-syslog server.syslog-facility server.core-files server.event-handler
        server.pid-file server.max-worker server.max-fds server.max-connections
        server.max-request-field-size server.chunkqueue-chunk-sz server.upload-temp-file-size
        server.upload-dirs server.http-parseopts server.http-parseopt-header-strict
        server.http-parseopt-host-strict server.http-parseopt-host-normalize
        server.reject-expect-100-with-417 server.stat-cache-engine mimetype.xattr-name
        debug.log-request-header-on-error server.feature-flags
        server.listen-backlog server.socket-perms server.bsd-accept-filter server.defer-accept
        server.use-ipv6 server.set-v6only server.v4mapped server.ip-transparent
        server.document-root server.name server.tag server.max-request-size
        server.max-keep-alive-requests server.max-keep-alive-idle server.max-read-idle
        server.max-write-idle server.errorfile-prefix server.error-handler server.error-handler-404
        server.error-intercept server.force-lowercase-filenames server.follow-symlink
        server.protocol-http11 server.range-requests server.stream-request-body
        server.stream-response-body server.kbytes-per-second connection.kbytes-per-second
        mimetype.assign mimetype.use-xattr etag.use-inode etag.use-mtime etag.use-size
        server.errorlog server.breakagelog debug.log-condition-handling debug.log-file-not-found
        debug.log-request-handling debug.log-request-header debug.log-response-header
        debug.log-timeouts debug.log-state-handling
        """,
    "mod_indexfile": "index-file.names",
    "mod_staticfile": """
        static-file.exclude-extensions static-file.etags static-file.disable-pathinfo
        """,
    "mod_dirlisting": """
        dir-listing.activate dir-listing.exclude dir-listing.hide-dotfiles dir-listing.external-css
        dir-listing.external-js dir-listing.encoding dir-listing.show-readme
        dir-listing.hide-readme-file dir-listing.show-header dir-listing.hide-header-file
        dir-listing.set-footer dir-listing.encode-readme dir-listing.encode-header
        dir-listing.auto-layout dir-listing.cache dir-listing.sort
        """,
    "mod_access": "url.access-deny url.access-allow",
    "mod_alias": "alias.url",
    "mod_redirect": "url.redirect url.redirect-code",
    "mod_rewrite": """
        url.rewrite-once url.rewrite-repeat url.rewrite-if-not-file url.rewrite-repeat-if-not-file
        """,
    "mod_setenv": """
        setenv.add-request-header setenv.set-request-header setenv.add-response-header
        setenv.set-response-header setenv.add-environment setenv.set-environment
        """,
    "mod_expire": "expire.url expire.mimetypes",
    "mod_accesslog": """
        accesslog.filename accesslog.format accesslog.use-syslog accesslog.syslog-level
        accesslog.escaping
        """,
    "mod_extforward": """
        extforward.forwarder extforward.headers extforward.params extforward.hap-PROXY
        extforward.hap-PROXY-ssl-client-verify
        """,
    "mod_status": """
        status.status-url status.config-url status.statistics-url status.enable-sort
        """,
    "mod_auth": "auth.backend auth.require auth.extern-authn auth.cache",
    "mod_authn_file": """
        auth.backend.plain.userfile auth.backend.plain.groupfile auth.backend.htpasswd.userfile
        auth.backend.htdigest.userfile
        """,
    "mod_authn_ldap": """
        auth.backend.ldap.hostname auth.backend.ldap.base-dn auth.backend.ldap.filter
        auth.backend.ldap.ca-file auth.backend.ldap.starttls auth.backend.ldap.bind-dn
        auth.backend.ldap.bind-pw auth.backend.ldap.allow-empty-pw auth.backend.ldap.groupmember
        auth.backend.ldap.timeout
        """,
    "mod_authn_pam": "auth.backend.pam.opts",
    "mod_authn_sasl": "auth.backend.sasl.opts",
    "mod_authn_gssapi": """
        auth.backend.gssapi.keytab auth.backend.gssapi.principal auth.backend.gssapi.store-creds
        """,
    "mod_authn_dbi": "auth.backend.dbi",
    "mod_deflate": """
        deflate.mimetypes deflate.allowed-encodings deflate.max-compress-size
        deflate.min-compress-size deflate.compression-level deflate.output-buffer-size
        deflate.work-block-size deflate.max-loadavg deflate.cache-dir deflate.params
        """,
    "mod_evhost": "evhost.path-pattern",
    "mod_simple_vhost": """
        simple-vhost.server-root simple-vhost.default-host simple-vhost.document-root
        simple-vhost.debug
        """,
    "mod_userdir": """
        userdir.path userdir.basepath userdir.exclude-user userdir.include-user userdir.letterhomes
        userdir.active
        """,
    "mod_vhostdb": "vhostdb.backend vhostdb.cache",
    "mod_vhostdb_dbi": "vhostdb.dbi",
    "mod_vhostdb_ldap": "vhostdb.ldap",
    "mod_vhostdb_mysql": "vhostdb.mysql",
    "mod_vhostdb_pgsql": "vhostdb.pgsql",
    "mod_openssl": """
        ssl.engine ssl.pemfile ssl.privkey ssl.ca-file ssl.ca-dn-file ssl.ca-crl-file
        ssl.cipher-list ssl.openssl.ssl-conf-cmd ssl.stek-file ssl.ech-opts ssl.ech-public-name
        ssl.read-ahead ssl.stapling-file ssl.acme-tls-1 ssl.verifyclient.activate
        ssl.verifyclient.enforce ssl.verifyclient.depth ssl.verifyclient.username
        ssl.verifyclient.exportcert ssl.verifyclient.ca-file ssl.verifyclient.ca-dn-file
        ssl.verifyclient.ca-crl-file ssl.dh-file ssl.ec-curve ssl.honor-cipher-order
        ssl.empty-fragments ssl.use-sslv2 ssl.use-sslv3 ssl.disable-client-renegotiation
        debug.log-ssl-noise
        """,
    "mod_cgi": """
        cgi.assign cgi.execute-x-only cgi.x-sendfile cgi.x-sendfile-docroot cgi.local-redir
        cgi.upgrade cgi.limits
        """,
    "mod_fastcgi": "fastcgi.server fastcgi.balance fastcgi.debug fastcgi.map-extensions",
    "mod_scgi": "scgi.server scgi.balance scgi.debug scgi.map-extensions scgi.protocol",
    "mod_proxy": """
        proxy.server proxy.balance proxy.debug proxy.map-extensions proxy.forwarded proxy.header
        proxy.replace-http-host
        """,
    "mod_wstunnel": """
        wstunnel.server wstunnel.balance wstunnel.debug wstunnel.map-extensions wstunnel.frame-type
        wstunnel.origins wstunnel.ping-interval
        """,
    "mod_ajp13": "ajp13.server ajp13.balance ajp13.debug ajp13.map-extensions",
    "mod_sockproxy": """
        sockproxy.server sockproxy.balance sockproxy.debug sockproxy.map-extensions
        """,
    "mod_ssi": "ssi.extension ssi.content-type ssi.conditional-requests ssi.exec ssi.recursion-max",
    "mod_webdav": """
        webdav.activate webdav.is-readonly webdav.log-xml webdav.sqlite-db-name webdav.opts
        """,
    "mod_magnet": """
        magnet.attract-raw-url-to magnet.attract-physical-path-to magnet.attract-response-start-to
        """,
    "mod_secdownload": """
        secdownload.secret secdownload.document-root secdownload.uri-prefix secdownload.timeout
        secdownload.algorithm secdownload.path-segments secdownload.hash-querystr
        """,
    "mod_rrdtool": "rrdtool.binary rrdtool.db-name",
    "mod_usertrack": "usertrack.cookie-name usertrack.cookie-max-age usertrack.cookie-domain",
    "mod_uploadprogress": "upload-progress.progress-url",
    "mod_maxminddb": "maxminddb.activate maxminddb.db maxminddb.env",
    "mod_h2": "",
    "mod_evasive": """
        evasive.max-conns-per-ip evasive.silent evasive.location evasive.limit-connections
        """,
    "mod_flv_streaming": "flv-streaming.extensions",
    "mod_trigger_b4_dl": """
        trigger-before-download.gdbm-filename trigger-before-download.trigger-url
        trigger-before-download.download-url trigger-before-download.deny-url
        trigger-before-download.trigger-timeout trigger-before-download.debug
        """,
    "mod_geoip": "geoip.db-filename geoip.memory-cache",
    "mod_cml": "cml.extension cml.memcache-hosts cml.memcache-namespace cml.power-magnet",
}

OTHER_TLS_MODULES = ("mod_gnutls", "mod_mbedtls", "mod_nss", "mod_wolfssl")
"""They read the ``ssl.`` directives of mod_openssl."""

IMPLICIT_MODULES = ("mod_indexfile", "mod_dirlisting", "mod_staticfile", "mod_openssl", "mod_h2")
"""lighttpd loads them when they are needed, listed or not (config.md 11)."""

OLD_NAMES = {
    "server.indexfiles": "index-file.names",
    "server.dir-listing": "dir-listing.activate",
    "url.rewrite": "url.rewrite-once",
    "url.rewrite-final": "url.rewrite-once",
    "ssl.ca-crl-file": "ssl.verifyclient.ca-crl-file",
}

OLD_MODULES = {"mod_compress": "mod_deflate"}

MODULES = frozenset(name for name in DIRECTIVES if name) | frozenset(OTHER_TLS_MODULES)

MODULE_OF: dict[str, str] = {
    directive.lower(): module for module, names in DIRECTIVES.items() for directive in names.split()
}
"""Lower-case directive to the module that reads it."""

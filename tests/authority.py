"""Certificates for tests, made by the ``openssl`` command: an authority and what it signs."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def openssl(*args: object) -> None:
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, both PEM."""

    certificate: Path
    key: Path

    def in_one_file(self) -> Path:
        both = self.certificate.with_suffix(".both")
        both.write_text(self.certificate.read_text() + self.key.read_text())
        return both

    def encrypted(self) -> Path:
        """The key behind a password."""
        locked = self.key.with_suffix(".locked")
        openssl("pkey", "-in", self.key, "-aes128", "-passout", "pass:x", "-out", locked)
        return locked


class Authority:
    """Its own certificate is ``certificate``; what it issues lies beside it."""

    def __init__(self, folder: Path, name: str = "authority", by: Authority | None = None) -> None:
        """*by*: the authority above it; None: nobody."""
        self.folder = folder
        self.certificate = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"
        folder.mkdir(parents=True, exist_ok=True)
        openssl(
            "req", "-x509", *_KEY, "-nodes", "-keyout", self.key, "-out", self.certificate,
            "-days", 10, "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            *(() if by is None else ("-CA", by.certificate, "-CAkey", by.key)),
        )  # fmt: skip

    def issue(self, name: str, subject: str = "", days: int = 10, file: str = "") -> Issued:
        """For the host (or address) *name*; *days*: -1 for one that has expired."""
        base = self.folder / (file or name)
        issued = Issued(base.with_name(f"{base.name}.pem"), base.with_name(f"{base.name}.key"))
        request = base.with_name(f"{base.name}.csr")
        extensions = base.with_name(f"{base.name}.ext")
        kind = "IP" if name.replace(".", "").isdigit() else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{name}\nbasicConstraints=CA:FALSE\n")
        openssl(
            "req", "-new", *_KEY, "-nodes", "-keyout", issued.key, "-out", request,
            "-utf8", "-subj", subject or f"/CN={name}",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
            "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", issued.certificate,
        )  # fmt: skip
        return issued

    def revocations(self, *revoked: Issued) -> Path:
        """A list of what is not valid any more."""
        (self.folder / "index.txt").write_text("")
        settings = self.folder / "ca.conf"
        settings.write_text(
            "[ca]\ndefault_ca=d\n[d]\ndefault_md=sha256\ndefault_crl_days=5\n"
            f"database={self.folder}/index.txt\n"
        )
        common = ("-config", settings, "-cert", self.certificate, "-keyfile", self.key)
        for one in revoked:
            openssl("ca", *common, "-revoke", one.certificate)
        found = self.folder / "crl.pem"
        openssl("ca", *common, "-gencrl", "-out", found)
        return found

    def client(self, issued: Issued | None = None) -> ssl.SSLContext:
        """How somebody who believes this authority asks a server, showing *issued*."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if issued is not None:
            context.load_cert_chain(issued.certificate, issued.key)
        return context

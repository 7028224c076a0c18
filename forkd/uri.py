"""Request targets and hosts: normalise, decode, simplify (core.md 5, 6). Pure; Latin-1 text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """``server.http-parseopts``; defaults as in core.md 6."""

    header_strict: bool = True
    host_strict: bool = True
    host_normalize: bool = True
    url_normalize: bool = True
    url_normalize_unreserved: bool = True
    url_normalize_required: bool = False
    url_ctrls_reject: bool = True
    url_path_backslash_trans: bool = False
    url_path_2f_decode: bool = True
    url_path_2f_reject: bool = False
    url_path_dotseg_remove: bool = True
    url_path_dotseg_reject: bool = False
    url_query_20_plus: bool = False
    url_invalid_utf8_reject: bool = True
    method_get_body: bool = False

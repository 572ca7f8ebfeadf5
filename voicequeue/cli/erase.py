"""`erase`: erase a person, and print a certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from voicequeue.cli.terminal import (
    AsJson,
    CommandError,
    Reason,
    Yes,
    confirm,
    escape_untrusted,
    flag,
    open_for_writing,
    open_queue,
    option,
    out,
    print_error,
    print_json,
    refuse,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.erasure import ErasureCertificate, ErasurePlan
from voicequeue.domain.namespaces import ALL, DEFAULT


def erase(
    metadata: Annotated[
        list[str] | None, option("NAME=VALUE", "--metadata", help="Erase the jobs with this metadata; repeatable.")
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Print what would be erased; change nothing.")] = False,
    token: Annotated[
        str | None,
        option("TOKEN", help="Erase what an earlier dry run printed, or print the certificate again, for a day."),
    ] = None,
    certificate: Annotated[
        Path | None, option("FILE", help="Write the certificate as text, or as JSON if FILE ends in .json.")
    ] = None,
    upstream: Annotated[
        Path | None, option("FILE", help="Write the voices and tasks to be erased by MusicAPI, one per line.")
    ] = None,
    allow_key: Annotated[str | None, option("KEY", help="Allow an erased key again; erase nothing.")] = None,
    allow_recording: Annotated[str | None, option("URL", help="Allow an erased recording again.")] = None,
    allow_hash: Annotated[
        str | None, option("SHA256", help="Allow an erased recording again whose jobs named its SHA-256.")
    ] = None,
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Erase a person: all jobs with some metadata, and all that names them.

    Prints what is concerned and asks before it erases. The same keys and recordings are not ordered again. The
    certificate contains no text of the person.
    """
    is_allowing = not allow_key is allow_recording is allow_hash is None
    if is_allowing:
        refuse(
            "with --allow-key, --allow-recording or --allow-hash",
            metadata=metadata,
            dry_run=dry_run,
            token=token,
            certificate=certificate,
            upstream=upstream,
            yes=yes,
        )
    if dry_run:
        refuse("with --dry-run", certificate=certificate, upstream=upstream, reason=reason)
    with open_queue(reason=reason) as queue:
        if is_allowing:
            _allow(queue, allow_key, allow_recording, allow_hash, as_json=as_json)
            return
        if token and (metadata or dry_run):
            raise typer.BadParameter("--token is given alone: its plan has the jobs already")
        plan = None if token else queue.plan_erasure(_pairs(metadata or []))
        if plan is not None and (dry_run or not as_json):
            print_json(plan.as_dict()) if as_json else _print_plan(plan)
        if dry_run:
            return
        confirm("erase all of this? It cannot be undone", yes=yes)
        erased = queue.erase(token or ("" if plan is None else plan.token))
    _write(erased, certificate, upstream)
    print_json(erased.as_dict()) if as_json else _print_certificate(erased)
    if plan is not None and not plan.is_complete:
        print_error("more jobs match than one plan takes; run the command again for the others", code="incomplete")
        raise typer.Exit(1)


def _allow(queue: VoiceQueue, key: str | None, url: str | None, sha256: str | None, *, as_json: bool) -> None:
    """Allow what was erased; fail if nothing was, because the namespace is probably another one."""
    count = queue.allow_erased(key=key, audio_url=url, audio_sha256=sha256)
    if count:
        print_json({"allowed": count}) if as_json else out.print(f"allowed again: {count:,}")
    else:
        namespace = "the default namespace" if queue.namespace in (DEFAULT, ALL) else f"namespace {queue.namespace}"
        raise CommandError("not_erased", f"nothing of this was erased in {namespace}; --namespace names another one")


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not pairs or not all(name and equals and value for name, equals, value in pairs):
        raise typer.BadParameter("--metadata must be NAME=VALUE, such as subject=42")
    return {name: value for name, _, value in pairs}


def _print_plan(plan: ErasurePlan) -> None:
    for sentence in plan.sentences():
        out.print(sentence)
    out.print(f"token: {plan.token}")


def _print_certificate(erased: ErasureCertificate) -> None:
    for line in erased.as_text().splitlines():
        out.print(escape_untrusted(line))


def _write(erased: ErasureCertificate, certificate: Path | None, upstream: Path | None) -> None:
    if certificate is not None:
        with open_for_writing(certificate) as file:
            file.write(
                json.dumps(erased.as_dict(), ensure_ascii=False, indent=2) + "\n"
                if certificate.suffix.lower() == ".json"
                else erased.as_text()
            )
    if upstream is not None:
        with open_for_writing(upstream) as file:
            file.writelines(f"{upstream_id}\n" for upstream_id in erased.upstream_ids)

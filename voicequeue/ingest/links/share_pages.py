"""Links that open a page of a service instead of the recording, and the direct form where there is one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from voicequeue.ingest.links.finding import Finding, Link

Rule = Callable[[Link], Finding | None]


def _query(link: Link) -> Mapping[str, str]:
    return dict(parse_qsl(link.query.lower(), keep_blank_values=True))


def _page(sentence: str, *, is_certain: bool = True) -> Finding:
    return Finding("share_link", sentence, is_certain)


def _google_drive(link: Link) -> Finding | None:
    if "/folders/" in link.path or link.path.startswith("/drive"):
        return _page("is a folder of Google Drive: use a link for each file in it")
    if link.path.rstrip("/").endswith("/uc") and _query(link).get("export") == "download":
        return None
    return _page(
        "opens a page of Google Drive, not the file: share the file with anyone who has the link, and write "
        "drive.google.com/uc?export=download&id=FILE_ID, where FILE_ID is the long code in this link"
    )


def _google_docs(link: Link) -> Finding | None:
    if link.path.startswith("/uc"):
        return _google_drive(link)
    return _page("opens a document of Google Docs, not a recording: use the link of the audio file")


def _dropbox(link: Link) -> Finding | None:
    query = _query(link)
    if link.path.startswith(("/sh/", "/scl/fo/")):
        return _page("is a folder of Dropbox: use a link for each file in it")
    if link.path.startswith(("/t/", "/transfer")):
        return _transfer(link)
    if link.path.startswith(("/s/", "/scl/")):
        if query.get("dl") == "1" or query.get("raw") == "1":
            return None
        return _page(
            "opens a page of Dropbox, not the file: write dl=1 in place of dl=0, or dl.dropboxusercontent.com in place "
            "of www.dropbox.com"
        )
    return _page("opens a page of Dropbox for its owner: share the file, and use its link with dl=1")


def _onedrive(link: Link) -> Finding | None:
    path, query = link.path.lower(), _query(link)
    if "download" in path.rpartition("/")[2] or query.get("download") == "1":
        return None
    sentence = (
        "opens a page of OneDrive or SharePoint, not the file: let anyone with the link see the file, and add "
        "download=1 to the link (after ? or &)"
    )
    is_share = re.match(r"/:[a-z]:/", path) is not None or not link.host.endswith("sharepoint.com")
    return _page(sentence, is_certain=is_share)


def _box(link: Link) -> Finding | None:
    if link.path.startswith(("/shared/static/", "/index.php", "/public/static/")):
        return None
    return _page("opens a page of Box, not the file: use the Direct Link in the settings of the shared link")


def _github(link: Link) -> Finding | None:
    if "/blob/" not in link.path or _query(link).get("raw") in ("1", "true"):
        return None
    return _page("opens a page that shows the file, not the file: use the link of its button Raw or Download")


def _archive_org(link: Link) -> Finding | None:
    if not link.path.startswith("/details/"):
        return None
    return _page("opens a page of the Internet Archive, not the file: use the link of the file itself, /download/…")


def _mediafire(link: Link) -> Finding | None:
    return None if link.host.startswith("download") else _transfer(link)


def _wetransfer(link: Link) -> Finding | None:
    return None if link.host.startswith("download.") else _transfer(link)


def _transfer(_link: Link) -> Finding:
    return _page(
        "opens a page with a button for the download, not the file: upload the file to a storage with direct links"
    )


def _stream(_link: Link) -> Finding:
    return _page("opens a player or a video page, which gives no MP3 or WAV file: upload the recording itself")


#: Pages of private clouds: Nextcloud and ownCloud, Synology, HiDrive, QNAP.
_CLOUD_PAGE = re.compile(r"(?:/index\.php)?/(?:s|sharing|lnk)/[A-Za-z0-9_-]{4,40}/?|(?:/.*)?/share\.cgi")


def share_page(link: Link) -> Finding | None:
    """Return the finding about a link whose path is that of a share page of a private cloud, on any host."""
    return _cloud_page(link, is_certain=False) if _CLOUD_PAGE.fullmatch(link.path) else None


def _cloud(link: Link) -> Finding | None:
    return None if "download" in link.path.lower() or "download" in _query(link) else _cloud_page(link, is_certain=True)


def _cloud_page(link: Link, *, is_certain: bool) -> Finding:
    cure = (
        "add /download to it"
        if link.path.removeprefix("/index.php").startswith("/s/")
        else "use its link for downloads, or upload the file to a storage with direct links"
    )
    return _page(f"opens a share page of a cloud, not the file: {cure}", is_certain=is_certain)


def _zoom(link: Link) -> Finding | None:
    return _stream(link) if link.path.startswith("/rec/") and "download" not in link.path else None


def _wrapper(link: Link) -> Finding | None:
    if not any(value.startswith(("http://", "https://")) for value in _query(link).values()):
        return None
    return Finding(
        "redirect_link",
        "leads through a page of an e-mail program, chat or search engine: open it, and copy the link that it leads to "
        "(it follows url=, q= or u=)",
    )


def _private(_link: Link) -> Finding:
    return _page("opens for signed-in people only: upload the file to a storage with public links")


def _short(_link: Link) -> Finding:
    return Finding("short_link", "is a short link: use the link it leads to, which must be the file itself", False)


_ONE_RULE_PER_HOST: Mapping[Rule, str] = {
    _google_drive: "drive.google.com",
    _google_docs: "docs.google.com sheets.google.com",
    _dropbox: "dropbox.com www.dropbox.com",
    _onedrive: "1drv.ms onedrive.live.com sharepoint.com onedrive.com",
    _box: "box.com app.box.com",
    _github: "github.com gitlab.com huggingface.co bitbucket.org",
    _archive_org: "archive.org",
    _mediafire: "mediafire.com",
    _wetransfer: "wetransfer.com",
    _transfer: (
        "we.tl icloud.com share.icloud.com mega.nz mega.io mega.co.nz pcloud.link pcloud.com "
        "fromsmash.com filemail.com gofile.io sendspace.com yadi.sk disk.yandex.com disk.yandex.ru cloud.mail.ru "
        "pan.baidu.com terabox.com drive.proton.me dropmefiles.com swisstransfer.com sendgb.com transfernow.net "
        "voca.ro vocaroo.com photos.google.com photos.app.goo.gl gofile.me quickconnect.to qlink.to ln.sync.com "
        "sync.com jottacloud.com jottacloud.link frame.io f.io airtable.com slack-files.com 1fichier.com tresorit.com"
    ),
    _stream: (
        "soundcloud.com soundcloud.app.goo.gl spotify.com spotify.link youtube.com youtu.be youtube-nocookie.com "
        "vimeo.com facebook.com fb.watch fb.com tiktok.com instagram.com twitter.com x.com music.apple.com "
        "podcasts.apple.com itunes.apple.com deezer.com tidal.com audiomack.com mixcloud.com music.amazon.com "
        "bandlab.com smule.com suno.com suno.ai udio.com bandcamp.com descript.com "
        "twitch.tv dailymotion.com bilibili.com loom.com reverbnation.com"
    ),
    _private: (
        "t.me telegram.me web.telegram.org web.whatsapp.com wa.me mail.google.com outlook.live.com outlook.office.com "
        "storage.cloud.google.com console.cloud.google.com console.aws.amazon.com portal.azure.com notion.so "
        "slack.com teams.microsoft.com discord.com discord.gg"
    ),
    _cloud: "magentacloud.de hidrive.com hidrive.ionos.com hidrive.strato.com myqnapcloud.com",
    _zoom: "zoom.us zoom.com",
    _wrapper: (
        "google.com google.de google.at google.ch google.fr google.es google.it google.nl google.pl google.co.uk "
        "safelinks.protection.outlook.com l.facebook.com lm.facebook.com l.instagram.com slack-redir.net "
        "urldefense.com urldefense.proofpoint.com out.reddit.com linkprotect.cudasvc.com duckduckgo.com linkedin.com "
        "vk.com"
    ),
    _short: (
        "bit.ly tinyurl.com goo.gl t.co rb.gy ow.ly cutt.ly is.gd v.gd tiny.cc shorturl.at lnkd.in rebrand.ly db.tt "
        "forms.gle t.ly buff.ly t1p.de kurzelinks.de qrco.de"
    ),
}
_RULES: Mapping[str, Rule] = {host: rule for rule, hosts in _ONE_RULE_PER_HOST.items() for host in hosts.split()}

#: Hosts of the same services that serve files.
_DIRECT = re.compile(
    r"(?:dl|api|cdn\d*|audiopipe|media|files?|content|static|download\d*)\..*|.*\.(?:api|cdn)\..*|"
    r"(?:content|public)\.(?:app\.)?box\.com|.*\.boxcloud\.com"
)
#: Services with direct links under such names; the others have none.
_HAS_DIRECT = frozenset({_dropbox, _box, _stream, _transfer, _onedrive, _github})


def share_rule(host: str) -> Rule | None:
    """Return the rule for the links of a host: that of its name, or of the domain that it belongs to."""
    name, labels = host, host.count(".")
    for _ in range(labels):
        if rule := _RULES.get(name):
            is_direct = name != host and rule in _HAS_DIRECT and _DIRECT.fullmatch(host)
            return None if is_direct else rule
        name = name.partition(".")[2]
    return None

"""Words: what the scanner says to people, in Chinese and in English.

The word of a verdict is always said in both, since customers look over the counter; the rest is in one.
"""

import locale
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Language(StrEnum):
    """A language of the screen."""

    CHINESE = "zh"
    ENGLISH = "en"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Language":
        """The language that LC_ALL, LC_MESSAGES or LANG name, English for any that is not ours."""
        named = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
        return cls.CHINESE if named.startswith("zh") else cls.ENGLISH


@dataclass(frozen=True, slots=True)
class Phrase:
    """One sentence or word in both languages; fields in braces are filled by `says`."""

    zh: str
    en: str

    def says(self, language: Language, **fields: object) -> str:
        """The sentence in this language."""
        return (self.zh if language is Language.CHINESE else self.en).format(**fields)


@dataclass(frozen=True, slots=True)
class Advice:
    """Why a verdict is as it is, and what whoever stands at the counter does now."""

    why: Phrase
    do: Phrase


NOT_RECORDED: Final = "not recorded"

VERDICTS: Final = {
    "genuine": Phrase("正品", "GENUINE"),
    "ask": Phrase("请核实", "ASK"),
    "refused": Phrase("拒绝", "REFUSED"),
    NOT_RECORDED: Phrase("未记录", "NOT RECORDED"),
}

GENUINE: Final = Advice(
    Phrase("由该发行方发行,未被撤销。", "Issued by this issuer, and not revoked."),
    Phrase("可以销售。签名防伪造,不防复制。", "Sell it. A signature stops forging, never copying."),
)

_NOT_SURE: Final = Phrase(
    "先别销售:联网后重扫,或请店长核实。", "Do not sell yet: scan again once online, or ask the manager."
)
_KEEP_IT: Final = Phrase("不要销售,留下商品,告诉店长。", "Do not sell. Keep the item and tell the manager.")
_FREE_DISK: Final = Phrase(
    "这次扫码不算数。请联网同步或清理磁盘,然后重扫。",
    "This scan does not count. Connect the network or free the disk, then scan again.",
)

ADVICE: Final = {
    "Malformed": Advice(
        Phrase("这不是商品码,或者没有扫全。", "This is not an item code, or it was not read whole."),
        Phrase("再扫一次;仍然如此就不要销售。", "Scan again; if it stays so, do not sell."),
    ),
    "UnknownKey": Advice(
        Phrase("名单里没有这个密钥编号。", "The trust list does not know this key number."),
        Phrase(
            "更新名单后重扫;仍然如此就不要销售。", "Update the trust list and scan again; if it stays so, do not sell."
        ),
    ),
    "BadSignature": Advice(
        Phrase("签名不对:码是伪造的,或被改过。", "The signature is wrong: the code is forged or was altered."), _KEEP_IT
    ),
    "KeyOutOfScope": Advice(
        Phrase("这个密钥无权签发此商品。", "The key was not entitled to sign for this item."), _KEEP_IT
    ),
    "Revoked": Advice(Phrase("此商品已被发行方撤销。", "The issuer has revoked this item."), _KEEP_IT),
    "BundleStale": Advice(
        Phrase(
            "码是对的,但名单已旧,可能缺少最近的撤销。",
            "The code is right, but the trust list is old and may lack recent revocations.",
        ),
        _NOT_SURE,
    ),
    "BundleExpired": Advice(
        Phrase(
            "码是对的,但名单已过期,可能缺少撤销。",
            "The code is right, but the trust list has expired and may lack revocations.",
        ),
        _NOT_SURE,
    ),
    "ClockSuspect": Advice(
        Phrase("码是对的,但本机时钟不可信。", "The code is right, but this device's clock cannot be right."),
        Phrase(
            "先别销售:校准时钟后重扫,或请店长核实。",
            "Do not sell yet: set the clock and scan again, or ask the manager.",
        ),
    ),
    "AlgorithmMissing": Advice(
        Phrase("本机缺少验证此码的组件。", "This installation lacks what verifies such a code."),
        Phrase("先别销售,请管理员安装组件 p256。", "Do not sell yet; let the administrator install the extra p256."),
    ),
    "TrustMissing": Advice(
        Phrase("本机还没有名单,无法判断。", "There is no trust list here yet, so nothing can be judged."),
        Phrase(
            "先别销售:联网,或从 U 盘更新名单。",
            "Do not sell yet: connect the network, or update the list from a USB stick.",
        ),
    ),
    "JournalFull": Advice(Phrase("扫码记录已满。", "The scan journal is full."), _FREE_DISK),
    "JournalDamaged": Advice(
        Phrase("扫码记录已损坏,旧文件已保留。", "The scan journal was damaged; the old file is kept."),
        Phrase(
            "这次扫码不算数。请重扫,并告诉管理员检查磁盘。",
            "This scan does not count. Scan again, and let the administrator check the disk.",
        ),
    ),
    "JournalUnwritable": Advice(Phrase("扫码记录无法写入。", "The scan journal cannot be written."), _FREE_DISK),
}
"""By the code of the error that is behind a verdict."""

OLD_LIST: Final = {
    "stale": Phrase("名单已旧(截至 {issued}):尽快更新", "OLD LIST, as of {issued}: update it soon"),
    "expired": Phrase("名单已过期(截至 {issued}):立即更新", "EXPIRED LIST, as of {issued}: update it now"),
}
WRONG_CLOCK: Final = Phrase("时钟可疑:请校准本机时间", "CLOCK SUSPECT: set this device's clock")
SEEN: Final = Phrase("本机已扫过:首次 {at}(此前 {times} 次)", "Seen here before: first at {at}, {times}x so far")

OUTER: Final = Phrase("外码", "outer code")
INNER: Final = Phrase("内码", "inner code")
ISSUER: Final = Phrase("发行方", "Issuer")
SERIAL: Final = Phrase("序列号", "Serial")
READY: Final = Phrase("请扫码", "READY: SCAN A CODE")

TODAY: Final = Phrase(
    "今日:正品 {genuine} · 核实 {ask} · 拒绝 {refused} · 重复 {again}",
    "Today: genuine {genuine} · ask {ask} · refused {refused} · seen before {again}",
)
LIST: Final = Phrase("名单 {seq} · {state} · {age}", "Trust list {seq} · {state} · {age}")
NO_LIST: Final = Phrase("没有名单", "No trust list")
STATES: Final = {
    "fresh": Phrase("新", "fresh"),
    "stale": Phrase("已旧", "OLD"),
    "expired": Phrase("已过期", "EXPIRED"),
}
HOURS_OLD: Final = Phrase("{hours} 小时前", "{hours} h old")
DAYS_OLD: Final = Phrase("{days} 天前", "{days} d old")
CLOCK_RIGHT: Final = Phrase("时钟 {at}", "Clock {at}")
CLOCK_WRONG: Final = Phrase("时钟 {at} 可疑", "Clock {at} SUSPECT")
WAITING: Final = Phrase("待同步 {waiting}", "waiting {waiting}")
LAST_SYNC: Final = Phrase("上次同步 {at}", "last sync {at}")
NEVER_SYNCED: Final = Phrase("尚未同步", "not synced yet")
LINK: Final = {
    "starting": Phrase("正在连接", "connecting"),
    "online": Phrase("在线", "online"),
    "offline": Phrase("离线", "OFFLINE"),
    "revoked": Phrase("本机已被停用", "DEVICE REVOKED"),
    "not enrolled": Phrase("未登记", "NOT ENROLLED"),
}
PORT_BACK: Final = Phrase("扫码枪已连接:{port}", "The scanner is connected: {port}")
PORT_GONE: Final = Phrase("扫码枪已断开:{port},插上后自动继续", "The scanner is unplugged: {port}; plug it in to go on")
LIST_NEW: Final = Phrase("名单已更新到 {seq}", "The trust list is now {seq}")
NEEDS_LIST: Final = Phrase(
    "没有可用的名单:请联网,或运行 fanxing-scanner update 文件",
    "No trust list: connect, or run fanxing-scanner update FILE",
)
NEEDS_UPDATE: Final = Phrase(
    "名单{state}:请联网,或运行 fanxing-scanner update 文件",
    "The trust list is {state}: connect, or run fanxing-scanner update FILE",
)
NEEDS_CLOCK: Final = Phrase(
    "时钟可疑:请校准时间;若时间无误,运行 fanxing-scanner clock correct --yes",
    "The clock is suspect: set it; if it is right, run fanxing-scanner clock correct --yes",
)


def can_show_chinese(encoding: str | None) -> bool:
    """Whether an output of this encoding has Chinese characters."""
    try:
        "正品 █".encode(encoding or locale.getpreferredencoding(False))
    except (LookupError, UnicodeEncodeError):
        return False
    return True

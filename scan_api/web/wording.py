"""Every word the shopper reads, in both languages, and the local form of dates, amounts and prizes."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from scan_api.web import member_words, trace_words
from scan_api.web.views import ErrorReason, Language, PrizeKind, ScanState

# China has kept one offset without daylight saving since 1992, so no time zone database is needed.
_ZONES: dict[Language, timezone] = {"zh": timezone(timedelta(hours=8)), "en": UTC}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

HTML_LANG: dict[Language, str] = {"zh": "zh-CN", "en": "en"}

_MORE_ZH, _MORE_EN = member_words.ZH | trace_words.ZH, member_words.EN | trace_words.EN

ZH: dict[str, str] = _MORE_ZH | {
    # Frame
    "site.name": "繁星",
    "site.motto": "繁星 · 一物一码",
    "site.promise": "本页不会向你索要密码、银行卡号或付款。",
    "site.me": "我的会员",
    "zone.name": "中国标准时间",
    "brand.unnamed": "品牌方",
    # Verdict
    "verdict.todo": "你可以这样做",
    "genuine.title": "验证通过",
    "genuine.lead": "这个码由{brand}签发，真实有效。",
    "caution.title": "码是真的，但请留意",
    "caution.lead": "这个码由{brand}签发，但有一处需要你核对。",
    "unknown.title": "查无此码",
    "unknown.lead": "没有品牌签发过这个码，它可能是伪造的。",
    "unknown.todo.1": "请不要购买、食用或使用这件商品。",
    "unknown.todo.2": "请联系售出它的商店，或直接联系品牌方。",
    "unknown.todo.3": "留好包装和购物小票。",
    "malformed.title": "读不出这个码",
    "malformed.lead": "码不完整，或被改动过，因此无法判断真假。",
    "malformed.todo.1": "擦净码面，用手机相机对准它再扫一次。",
    "malformed.todo.2": "请扫实物上的码，不要用转发来的链接。",
    "malformed.todo.3": "仍然读不出时，请先不要购买，并联系商店或品牌方。",
    "revoked.title": "此码已作废",
    "revoked.lead": "{brand}已作废这个码，它不再能证明商品的真假。",
    "revoked.todo.1": "请先不要购买、食用或使用这件商品。",
    "revoked.todo.2": "请联系售出它的商店，或直接联系品牌方。",
    "revoked.todo.3": "留好包装和购物小票。",
    "recalled.title": "请停止使用：商品已召回",
    "recalled.lead": "{brand}正在召回这件商品。",
    "recalled.todo.1": "请不要再食用或使用，也不要转送他人。",
    "recalled.todo.2": "请联系售出它的商店或品牌方，办理退货或更换。",
    "recalled.todo.3": "若已食用或使用并感到不适，请尽快就医，并带上包装。",
    "voided.title": "此码在上市前已停用",
    "voided.lead": "{brand}已停用这个码，例如因标签印坏。市面上不应有带此码的商品。",
    "voided.todo.1": "请先不要购买、食用或使用这件商品。",
    "voided.todo.2": "请把在哪里见到它告诉品牌方，并联系售出它的商店。",
    "voided.todo.3": "留好包装和购物小票。",
    "held.title": "品牌方暂停了这件商品的销售",
    "held.lead": "{brand}正在核查这件商品，核查结束前请勿销售或使用。",
    "held.todo.1": "请先不要购买、食用或使用这件商品。",
    "held.todo.2": "请联系售出它的商店，或直接联系品牌方。",
    "held.todo.3": "过几天再扫一次：核查结束后，这里会显示结果。",
    "error.title": "暂时无法验证",
    "error.lead": "我们的服务出了问题，这不说明商品是真是假。",
    "error.todo.1": "请过一会儿再扫一次。",
    "error.todo.2": "在查清之前，请不要只凭这个码判断真假。",
    "warning.not_active": "这件商品尚未上市。若你已在市面上见到它，请向商店或品牌方核实。",
    "warning.expired": "这件商品已过有效期，请不要食用或使用，并告诉售出它的商店。",
    "warning.scanned_often": "这个码被扫的次数异常多，你手上的可能是复制品。请核对下方的流转记录，有疑问就联系品牌方。",
    # Item and its scans
    "item.heading": "商品",
    "item.gtin": "商品条码 GTIN",
    "item.serial": "序列号",
    "scans.first_now": "这是第一次扫码",
    "scans.first_now.meaning": "在你之前，没有人扫过这个码。",
    "scans.first": "首次扫码",
    "scans.count": "累计扫码",
    "scans.times": "{count} 次",
    "scans.earlier.meaning": (
        "如果你刚买到它、自己从未扫过，说明有人先扫过：可能是在店里，也可能是码被复制了。包装若已拆封或看着不对，请问商店或品牌方。"
    ),
    "scans.honest": "签名能防伪造，防不了复制：真码也可能被翻印到别的商品上。请拿扫码次数和流转记录与手上的商品核对。",
    # Timeline
    "timeline.heading": "它从哪里来",
    "timeline.zone": "时间均为{zone}（UTC+8）",
    "step.commissioned": "生产赋码",
    "step.activated": "激活上市",
    "step.shipped": "出库发货",
    "step.received": "到货签收",
    "step.held": "品牌方暂停销售",
    "step.recalled": "品牌方召回",
    "step.voided": "此码已停用",
    "step.scanned": "被扫码",
    "step.claimed": "奖品被领取",
    # Prize
    "prize.points.one": "{amount} 积分",
    "prize.points.many": "{amount} 积分",
    "prize.mb.one": "{amount} MB 流量",
    "prize.mb.many": "{amount} MB 流量",
    "prize.fen.one": "{amount} 元红包",
    "prize.fen.many": "{amount} 元红包",
    "prize.benefit.one": "{amount} 份权益",
    "prize.benefit.many": "{amount} 份权益",
    "prize.nothing.one": "谢谢参与",
    "prize.nothing.many": "谢谢参与",
    "offer.chances": "奖品与中奖概率",
    "offer.draw": "抽一份奖品",
    "offer.claim": "领取 {prize}",
    "offer.play": "抽奖",
    "offer.jump": "有奖品可领：{prize}",
    "offer.jump.draw": "可以抽奖",
    "offer.worth": "价值 {amount}",
    "offer.odds": "{prize}：{weight}/{of}，即 {percent}%",
    "offer.sign_in": "用手机号领取",
    "offer.claimed_by_you": "你已领取这份奖品。",
    "offer.claimed": "这份奖品已被领走，每个码只能领一次。若你刚刚拆开包装，请联系品牌方。",
    "offer.not_started": "活动还没有开始。",
    "offer.ended": "活动已经结束。",
    "offer.used_up": "奖品已经领完。",
    "offer.limit_reached": "你在本活动的领取次数已达上限。",
    "offer.needs_inner": "请扫描瓶盖内或涂层下的码来领取。",
    "offer.not_active": "商品尚未上市，暂时不能领取。",
    # Phone and one-time code
    "phone.title": "用手机号登录",
    "phone.lead.me": "查看你的积分、会员卡和权益。",
    "phone.lead.claim": "确认号码后即可领取奖品。",
    "phone.label": "手机号码",
    "phone.hint": "我们会发短信验证码到这个号码。中国大陆以外请加国际区号，如 +65。",
    "phone.submit": "获取验证码",
    "phone.problem.invalid_phone": "这不像是一个能收短信的手机号码，请检查后重填。",
    "phone.problem.too_many_requests": "请求太频繁了，请过几分钟再试。",
    "consent": "点按按钮，即表示你同意我们按以下说明使用你的号码。",
    "privacy.summary": "隐私：你的号码怎么用",
    "privacy.body": (
        "号码只用于登录、维护你的会员身份和发放奖品。它加密保存；你要求删除时，我们销毁解密的钥匙，号码从此无法读出。"
    ),
    "otp.title": "输入验证码",
    "otp.lead": "6 位验证码已发送到 {phone}。",
    "otp.label": "6 位验证码",
    "otp.submit.claim": "确认并领取",
    "otp.submit.sign_in": "登录",
    "otp.resend": "重新发送",
    "otp.other_phone": "换一个号码",
    "otp.development.title": "开发环境：没有发出短信",
    "otp.development.code": "验证码",
    "otp.problem.wrong": "验证码不对。",
    "otp.problem.expired": "验证码已过期，请重新发送。",
    "otp.problem.too_many_tries": "试错次数太多，这个验证码已失效，请重新发送。",
    "otp.tries_left.one": "还可以再试 {count} 次。",
    "otp.tries_left.many": "还可以再试 {count} 次。",
    # Claimed
    "claimed.title": "领取成功",
    "claimed.lead": "你获得了 {prize}。",
    "claimed.points": "积分已计入你的账户。",
    "claimed.mb": "流量正在发往你的手机号。",
    "claimed.fen": "红包正在发放，请按提示确认收款。",
    "claimed.nothing": "这次没有中奖，谢谢参与。",
    "claimed.benefit": "已放入“我的会员”，到店或下单时出示。",
    "claimed.me": "查看我的会员",
    # Code package
    "package.title": "领取码包",
    "package.lead": "供印刷厂下载加密的码包，并回报印刷结果。",
    "package.code.label": "领取码",
    "package.code.hint": "以 fxp_ 开头，由品牌方另行告知，不会出现在网址里。",
    "package.fetch": "下载码包",
    "package.fetch.note": "每次下载都计入次数。下载后用你自己的 age 私钥解密。",
    "package.problem.unknown": "网址或领取码不对，请核对后再试。",
    "package.problem.spent": "下载次数已用完，请向品牌方索取新的链接。",
    "package.problem.expired": "链接已过期，请向品牌方索取新的链接。",
    "package.problem.revoked": "链接已被撤销，请向品牌方索取新的链接。",
    "package.problem.unavailable": "码包文件暂时取不到，这次不计次数。请联系品牌方。",
    "package.problem.report_refused": "没能收下这份回报，请检查下面填写的范围。",
    "report.title": "印刷回报",
    "report.lead": (
        "按印刷顺序填写位置，从 0 开始（第一个码是 0），如 0-4999,7000；也可填写首尾标签上的 14 位序列号。没有的留空。"
    ),
    "report.printed": "已印好",
    "report.spoiled": "印坏作废",
    "report.overprinted": "重复印刷",
    "report.overprinted.hint": "同一个码印在一张以上标签上的，会全部作废。",
    "report.submit": "发送回报",
    "report.received.title": "回报已收到",
    "report.received": "可上市 {printed} 个，印坏 {spoiled} 个，重复印刷 {overprinted} 个。品牌方确认后生效。",
    # Errors
    "failure.code": "错误代码",
    "failure.not_found.title": "没有这个页面",
    "failure.not_found.message": "网址可能输错了，或页面已不存在。",
    "failure.not_found.hint": "请重新扫描商品上的码。",
    "failure.invalid_request.title": "没能看懂这次提交",
    "failure.invalid_request.message": "提交的内容不完整，或已失效。",
    "failure.invalid_request.hint": "请重新扫描商品上的码，再做一遍。",
    "failure.too_many_requests.title": "请稍等片刻",
    "failure.too_many_requests.message": "短时间内的请求太多了。",
    "failure.too_many_requests.hint": "请过几分钟再试。",
    "failure.sign_in_needed.title": "请重新登录",
    "failure.sign_in_needed.message": "登录已失效。",
    "failure.sign_in_needed.hint": "请重新扫描商品上的码，再用手机号登录。",
    "failure.unavailable.title": "服务暂时不可用",
    "failure.unavailable.message": "我们的服务出了问题，不是你的操作有误。",
    "failure.unavailable.hint": "请稍后再试。重复提交不会重复领取，也不会重复扣减。",
    "failure.claim.title": "没有领取成功",
    "failure.claim.hint": "你的积分和会员卡没有变化。",
}

EN: dict[str, str] = _MORE_EN | {
    # Frame
    "site.name": "Fanxing",
    "site.motto": "Fanxing · one item, one code",
    "site.promise": "This page never asks for a password, a bank card or a payment.",
    "site.me": "My membership",
    "zone.name": "UTC",
    "brand.unnamed": "the brand",
    # Verdict
    "verdict.todo": "What you can do",
    "genuine.title": "Genuine code",
    "genuine.lead": "This code was issued by {brand} and is valid.",
    "caution.title": "Genuine code, but look closer",
    "caution.lead": "This code was issued by {brand}, but there is something for you to check.",
    "unknown.title": "No such code",
    "unknown.lead": "No brand has issued this code. It may be forged.",
    "unknown.todo.1": "Do not buy, eat or use this item.",
    "unknown.todo.2": "Contact the shop that sold it, or the brand directly.",
    "unknown.todo.3": "Keep the packaging and the receipt.",
    "malformed.title": "This code cannot be read",
    "malformed.lead": "It is incomplete or was altered, so it says nothing about the item.",
    "malformed.todo.1": "Wipe the code clean and scan it again with your camera.",
    "malformed.todo.2": "Scan the code on the item itself, not a forwarded link.",
    "malformed.todo.3": "If it still cannot be read, do not buy the item; contact the shop or the brand.",
    "revoked.title": "This code was withdrawn",
    "revoked.lead": "{brand} has withdrawn this code. It no longer proves that an item is genuine.",
    "revoked.todo.1": "Do not buy, eat or use this item for now.",
    "revoked.todo.2": "Contact the shop that sold it, or the brand directly.",
    "revoked.todo.3": "Keep the packaging and the receipt.",
    "recalled.title": "Stop using this item: it is recalled",
    "recalled.lead": "{brand} is recalling this item.",
    "recalled.todo.1": "Do not eat or use it any more, and do not pass it on.",
    "recalled.todo.2": "Contact the shop that sold it, or the brand, to return or exchange it.",
    "recalled.todo.3": "If you have eaten or used it and feel unwell, see a doctor and bring the packaging.",
    "voided.title": "Code withdrawn before sale",
    "voided.lead": "{brand} withdrew it, such as for a spoiled label. No item on sale should carry it.",
    "voided.todo.1": "Do not buy, eat or use this item for now.",
    "voided.todo.2": "Tell the brand where you found it, and contact the shop that sold it.",
    "voided.todo.3": "Keep the packaging and the receipt.",
    "held.title": "The brand holds this item back",
    "held.lead": "{brand} is looking into this item; it must not be sold or used until that is done.",
    "held.todo.1": "Do not buy, eat or use this item for now.",
    "held.todo.2": "Contact the shop that sold it, or the brand directly.",
    "held.todo.3": "Scan it again in some days: the result will be shown here.",
    "error.title": "We cannot check right now",
    "error.lead": "Our service has a problem. This says nothing about the item.",
    "error.todo.1": "Please scan again in a little while.",
    "error.todo.2": "Until the check succeeds, do not rely on this code.",
    "warning.not_active": (
        "This item is not on sale yet. If you found it on sale, please ask the shop or the brand about it."
    ),
    "warning.expired": "This item is past its date. Do not eat or use it, and tell the shop that sold it.",
    "warning.scanned_often": (
        "This code has been scanned unusually often, so the item in your hand may be a copy. "
        "Compare it with the journey below, and contact the brand if in doubt."
    ),
    # Item and its scans
    "item.heading": "Item",
    "item.gtin": "GTIN",
    "item.serial": "Serial",
    "scans.first_now": "This is the first scan",
    "scans.first_now.meaning": "Nobody has scanned this code before you.",
    "scans.first": "First scanned on",
    "scans.count": "Scanned",
    "scans.times": "{count} times",
    "scans.earlier.meaning": (
        "If you have just bought this item and never scanned it, someone scanned it before you: perhaps in the shop, "
        "or perhaps the code was copied. If the pack is open or looks wrong, ask the shop or the brand."
    ),
    "scans.honest": (
        "A signature stops forging, but never copying: a genuine code can be reprinted on another item. "
        "Compare the scans and the journey shown here with the item in your hand."
    ),
    # Timeline
    "timeline.heading": "Where it comes from",
    "timeline.zone": "All times in {zone}",
    "step.commissioned": "Made and coded",
    "step.activated": "Released for sale",
    "step.shipped": "Shipped",
    "step.received": "Received",
    "step.held": "Held back by the brand",
    "step.recalled": "Recalled by the brand",
    "step.voided": "Code withdrawn",
    "step.scanned": "Scanned",
    "step.claimed": "Prize claimed",
    # Prize
    "prize.points.one": "{amount} point",
    "prize.points.many": "{amount} points",
    "prize.mb.one": "{amount} MB of data",
    "prize.mb.many": "{amount} MB of data",
    "prize.fen.one": "a cash gift of ¥{amount}",
    "prize.fen.many": "a cash gift of ¥{amount}",
    "prize.benefit.one": "{amount} benefit",
    "prize.benefit.many": "{amount} benefits",
    "prize.nothing.one": "no prize",
    "prize.nothing.many": "no prize",
    "offer.chances": "Prizes and odds",
    "offer.draw": "Draw a prize",
    "offer.claim": "Claim {prize}",
    "offer.play": "Draw",
    "offer.jump": "A prize awaits: {prize}",
    "offer.jump.draw": "A draw awaits",
    "offer.worth": "Worth {amount}",
    "offer.odds": "{prize}: {weight} in {of}, or {percent}%",
    "offer.sign_in": "Claim with your phone number",
    "offer.claimed_by_you": "You have claimed this prize.",
    "offer.claimed": (
        "This prize has already been claimed; each code pays once. "
        "If you have only just opened the pack, contact the brand."
    ),
    "offer.not_started": "The campaign has not started yet.",
    "offer.ended": "The campaign has ended.",
    "offer.used_up": "All prizes have been claimed.",
    "offer.limit_reached": "You have reached the limit of this campaign.",
    "offer.needs_inner": "To claim it, scan the code under the cap or the cover.",
    "offer.not_active": "The item is not on sale yet, so its prize cannot be claimed.",
    # Phone and one-time code
    "phone.title": "Sign in with your phone",
    "phone.lead.me": "See your points, cards and benefits.",
    "phone.lead.claim": "Once the number is confirmed, the prize is yours.",
    "phone.label": "Mobile number",
    "phone.hint": "We text a code to this number. Outside mainland China, start with the country code, such as +65.",
    "phone.submit": "Text me a code",
    "phone.problem.invalid_phone": "This does not look like a number that can receive texts. Please check it.",
    "phone.problem.too_many_requests": "Too many requests. Please try again in a few minutes.",
    "consent": "By tapping the button you agree to how we use your number.",
    "privacy.summary": "Privacy: how we use your number",
    "privacy.body": (
        "We use it only to sign you in, to keep your membership and to deliver prizes. It is stored encrypted; "
        "when you ask us to delete it, we destroy its key and nobody can read it again."
    ),
    "otp.title": "Enter the code",
    "otp.lead": "We sent a 6-digit code to {phone}.",
    "otp.label": "6-digit code",
    "otp.submit.claim": "Confirm and claim",
    "otp.submit.sign_in": "Sign in",
    "otp.resend": "Send it again",
    "otp.other_phone": "Use another number",
    "otp.development.title": "Development: no text was sent",
    "otp.development.code": "Code",
    "otp.problem.wrong": "That code is not right.",
    "otp.problem.expired": "That code has expired. Please send a new one.",
    "otp.problem.too_many_tries": "Too many wrong tries: that code no longer works. Please send a new one.",
    "otp.tries_left.one": "You have {count} try left.",
    "otp.tries_left.many": "You have {count} tries left.",
    # Claimed
    "claimed.title": "It is yours",
    "claimed.lead": "You have won {prize}.",
    "claimed.points": "The points are in your account.",
    "claimed.mb": "The data is on its way to your number.",
    "claimed.fen": "The cash gift is on its way. Confirm it when you are asked.",
    "claimed.nothing": "No prize this time. Thank you for taking part.",
    "claimed.benefit": "It is kept under My membership. Show it in the shop or enter its code online.",
    "claimed.me": "See my membership",
    # Code package
    "package.title": "Fetch a code package",
    "package.lead": "For print houses: fetch a sealed package, and report what was printed of it.",
    "package.code.label": "Fetch code",
    "package.code.hint": "It begins with fxp_. The brand tells you apart from this address, which never holds it.",
    "package.fetch": "Fetch the package",
    "package.fetch.note": "Each download counts. Open the file with your own private key of age.",
    "package.problem.unknown": "The address or the fetch code is not right. Please check both.",
    "package.problem.spent": "All downloads of this link are used up. Please ask the brand for a new link.",
    "package.problem.expired": "This link has expired. Please ask the brand for a new link.",
    "package.problem.revoked": "This link was revoked. Please ask the brand for a new link.",
    "package.problem.unavailable": "The file cannot be had right now, and nothing was counted. Please tell the brand.",
    "package.problem.report_refused": "This report was not taken. Please check the ranges below.",
    "report.title": "Report back",
    "report.lead": (
        "Write places in the order of printing, counted from 0 (the first code is 0), such as 0-4999,7000, "
        "or the 14-digit serials of the first and last label. Leave empty what there is none of."
    ),
    "report.printed": "Printed well",
    "report.spoiled": "Spoiled",
    "report.overprinted": "Printed too often",
    "report.overprinted.hint": "Codes that stand on more than one label. All of their labels will be void.",
    "report.submit": "Send the report",
    "report.received.title": "Report received",
    "report.received": (
        "{printed} to go on sale, {spoiled} spoiled, {overprinted} printed too often. "
        "It takes effect when the brand accepts it."
    ),
    # Errors
    "failure.code": "Error code",
    "failure.not_found.title": "No such page",
    "failure.not_found.message": "The address may be mistyped, or the page is gone.",
    "failure.not_found.hint": "Please scan the code on the item again.",
    "failure.invalid_request.title": "We did not understand that",
    "failure.invalid_request.message": "What was sent is incomplete or no longer valid.",
    "failure.invalid_request.hint": "Please scan the code on the item again and start over.",
    "failure.too_many_requests.title": "One moment, please",
    "failure.too_many_requests.message": "There were too many requests in a short time.",
    "failure.too_many_requests.hint": "Please try again in a few minutes.",
    "failure.sign_in_needed.title": "Please sign in again",
    "failure.sign_in_needed.message": "Your session has ended.",
    "failure.sign_in_needed.hint": "Scan the code on the item again, then sign in with your phone number.",
    "failure.unavailable.title": "The service is not available",
    "failure.unavailable.message": "The problem is on our side, not yours.",
    "failure.unavailable.hint": "Please try again later. Sending it twice never claims or spends twice.",
    "failure.claim.title": "The prize was not claimed",
    "failure.claim.hint": "Your points and your card are unchanged.",
}

WORDS: dict[Language, dict[str, str]] = {"zh": ZH, "en": EN}


def say(language: Language, key: str, **values: Any) -> Markup:
    """The wording of `key` with its values filled in, each escaped unless it is markup already."""
    # The wording is ours and may be markup; Markup.format escapes what is filled in.
    return Markup(WORDS[language][key]).format(**values)  # noqa: S704


def isolated(text: str) -> Markup:
    """Text from outside, fenced so that neither its markup nor its writing direction spills over."""
    return Markup("<bdi>{}</bdi>").format(text)


def named(text: str) -> Markup:
    """Text from outside that a sentence is about, fenced and set in bold."""
    return Markup('<bdi class="name">{}</bdi>').format(text)


def number(amount: int) -> str:
    """An amount with a comma every three digits, as both languages write it."""
    return f"{amount:,}"


def todo(language: Language, state: ScanState) -> list[Markup]:
    """What a shopper should do about a verdict, the most urgent first; nothing for a genuine code."""
    keys = sorted(key for key in WORDS[language] if key.startswith(f"{state}.todo."))
    return [say(language, key) for key in keys]


def failure(language: Language, reason: ErrorReason) -> tuple[str, str, str]:
    """Title, message and hint of a refusal or a failure; a refused claim gives the reason that its offer would show."""
    words = WORDS[language]
    if f"offer.{reason}" in words:
        return words["failure.claim.title"], words[f"offer.{reason}"], words["failure.claim.hint"]
    return (
        words[f"failure.{reason}.title"],
        words[f"failure.{reason}.message"],
        words[f"failure.{reason}.hint"],
    )


def prize(language: Language, kind: PrizeKind, amount: int, name: str | None = None) -> Markup:
    """A prize in words: "50 points", "a cash gift of ¥1.50"; a benefit by its own name, where it is known."""
    if name is not None:
        return isolated(name)
    shown = f"{amount // 100:,}.{amount % 100:02}" if kind == "fen" else number(amount)
    return say(language, f"prize.{kind}.{_plural(amount)}", amount=shown)


def odds(weight: int, of: int) -> str:
    """A chance of `weight` in `of` as a percentage, exact to four digits and never rounded down to nothing."""
    return f"{Decimal(100 * weight) / of:.4g}" if weight * 10**6 >= of else "<0.0001"


def tries_left(language: Language, count: int) -> Markup:
    """How often a one-time code may still be tried."""
    return say(language, f"otp.tries_left.{_plural(count)}", count=count)


def moment(language: Language, at: datetime) -> Markup:
    """A point in time to the minute in the language's zone, which the page must name beside it."""
    local = at.astimezone(_ZONES[language])
    if language == "zh":
        text = f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"
    else:
        text = f"{local.day} {_MONTHS[local.month - 1]} {local.year}, {local:%H:%M}"
    machine = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(machine, text)


def _plural(count: int) -> str:
    return "one" if count == 1 else "many"

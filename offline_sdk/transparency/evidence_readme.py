"""Evidence readme: what stands in every evidence bundle about how to check it, in Chinese and in English."""

from typing import Final

README: Final = """\
证据包 / Evidence bundle (fanxing-evidence@1)


【如何核验】 不需要网络，也不需要信任出具本包的一方。

  1. 安装核验程序（Python 3.11 或更高版本）：  pip install fanxing-offline-sdk
  2. 从可信的渠道取得日志的公钥，例如品牌的官方公告，或 https://<品牌的服务器>/log/key 。
     不要使用包内的 key 文件：能伪造本包的人，也能替换其中的公钥。
  3. 执行：  fanxing-audit evidence 本文件.zip --key 公钥
     如要求见证人共同签名，再加：  --witness 见证人的公钥（可重复）
  4. 显示 WHOLE（退出码 0）：包内每条记录都在公钥签名的透明日志中，未被更改。
     否则（退出码 1）会指出第一处问题。退出码 2：文件无法读取。

【包内文件】
  events.ndjson        每行一条记录：盐（salt）和记录（record）的原始字节；已依法删除的记录为 {"erased":true}
  proofs/N.tlog-proof  第 N 号叶子的包含证明（C2SP tlog-proof），与 events.ndjson 的行对应，顺序见 manifest.json
  checkpoint           日志签名的检查点，含见证人的共同签名（C2SP tlog-checkpoint）
  key, witnesses       日志及见证人的公钥，仅供参考
  code.json            如查询的是防伪码：出具本包的服务器对该码的判定，未经签名
  manifest.json        各记录的叶子序号与承诺值、每个文件的 SHA-256；未经签名

【证明什么，不证明什么】
  证明：这些记录当时已写入日志，此后未被更改、调换或伪造。
  不证明：记录所述属实；也不证明没有其他记录。出具方可以少给。需要全部历史的，请索取日志的完整导出，
  用 fanxing-audit 核验。manifest.json 中 pending 为尚未进入已签名检查点的记录，unlogged 为早于日志的记录，
  is_cut 为 true 表示追溯结果过多、未全部列出。


HOW TO CHECK IT: with no network, and no trust in whoever gave you this file.

  1. Install the program (Python 3.11 or newer):  pip install fanxing-offline-sdk
  2. Get the log's verifier key over a way that you trust, such as the brand's own publication, or
     https://<the brand's server>/log/key . Do not use the file `key` in here: who can forge a bundle can replace it.
  3. Run:  fanxing-audit evidence THIS_FILE.zip --key KEY
     and, where witnesses must have cosigned, also:  --witness KEY  (may be repeated)
  4. WHOLE (exit status 0): every record in here is in the transparency log that the key signs for, unaltered.
     Else (exit status 1) the first fault is named. Exit status 2: the file cannot be read.

WHAT IS IN IT
  events.ndjson        one record a line: its salt, and the record's very bytes; {"erased":true} where it was erased
  proofs/N.tlog-proof  the inclusion proof of leaf N (C2SP tlog-proof); manifest.json has the order of the lines
  checkpoint           the log's signed checkpoint, with the cosignatures of witnesses (C2SP tlog-checkpoint)
  key, witnesses       the keys of the log and of its witnesses, for information
  code.json            where a code was asked for: what the server that made this says of it, signed by nobody
  manifest.json        each record's leaf and commitment, and the SHA-256 of every file; signed by nobody

WHAT IT PROVES, AND WHAT NOT
  It proves that these records were written to the log, and that nobody altered, exchanged or forged them since.
  It does not prove that what they say is true, nor that there are no others: who makes a bundle can leave some out.
  For all of the history ask for an export of the log, which fanxing-audit verifies as a whole. In manifest.json,
  pending are records that no signed checkpoint holds yet, unlogged those that are older than the log, and is_cut
  says that there was more than the trace tells of.

By hand, with nothing but SHA-256 and Ed25519: entry = "salted-sha-256:" + hex(SHA-256("fanxing/log/commitment/v1" ||
0x00 || salt || record)); leaf hash = SHA-256(0x00 || entry); the proof leads to the root in `checkpoint` as RFC 9162,
2.1.3.2, says.
"""

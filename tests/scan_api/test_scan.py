from tests.stand import Stand


def test_smoke(stand: Stand) -> None:
    item = stand.take_item()
    answer = stand.scan(item.inner)
    print(answer.status_code, answer.json(), answer.headers)
    for name, path in stand.installation.refused.items():
        a = stand.scan(path)
        print(name, a.status_code, a.json()["error"])
    m = stand.member()
    print(stand.claim(m, item.inner, "points").text)
    print(stand.claim(m, item.inner, "data").text)
    print(stand.claim(m, item.outer, "coupon").text)
    print(stand.counts(), stand.books(), stand.asset_totals())
    print(stand.server.log[-2000:])
    assert 0

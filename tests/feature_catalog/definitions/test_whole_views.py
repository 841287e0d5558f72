from hypothesis import given as having
from hypothesis import settings

from feature_catalog.definitions.catalog_set import DefinitionSet, check_set
from feature_catalog.definitions.contracts import freeze, thaw
from feature_catalog.definitions.whole_views import with_whole_views
from tests.feature_catalog.definitions.examples import parsed, with_change
from tests.feature_catalog.definitions.strategies import definition_sets


@having(definition_sets())
@settings(max_examples=50)
def test_what_is_read_from_a_contract_freezes_to_it_again(given: DefinitionSet):
    for name in given.names("feature_service"):
        contract = freeze(given, given.service(name))
        read = thaw(contract)
        check_set(read)
        assert freeze(read, read.service(name)) == contract
        whole = with_whole_views(read, [given.view(each) for each in read.names("feature_view")])
        assert all(whole.view(each) == given.view(each) for each in read.names("feature_view"))
        assert freeze(whole, whole.service(name)) == contract


def test_a_view_that_means_something_else_by_now_is_not_taken_for_the_contracts():
    before = parsed()
    contract = freeze(before, before.service("ads_ctr_v1"))
    after = parsed(with_change("path: ad_stats.parquet", "path: other.parquet"))
    read = thaw(contract)
    now = with_whole_views(read, [after.view("ad_stats"), before.view("ad_stats")])
    assert now.view("ad_stats") == before.view("ad_stats")
    assert with_whole_views(read, [after.view("ad_stats")]).view("ad_stats") == read.view(
        "ad_stats"
    )

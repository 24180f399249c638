#include <set>
#include <string>

#include "prismaquant/formats/format_list.hpp"
#include "support/catch.hpp"

using namespace prismaquant;

TEST_CASE("names are unique and each finds its format") {
  std::set<std::string> names;
  for_each_format([&]<format F>(F) {
    REQUIRE(names.insert(std::string(F::name)).second);
    visit_format(F::name, [&]<format G>(G) { REQUIRE(G::name == F::name); });
  });
  REQUIRE(names.size() == std::tuple_size_v<format_list>);
}

TEST_CASE("an unknown name lists the known ones") {
  REQUIRE_THROWS_AS(visit_format("nvfp5", [](auto) {}), format_error);
  REQUIRE_THROWS_WITH(
      visit_format("nvfp5", [](auto) {}),
      "unknown format 'nvfp5'; known: nvfp4, mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, mxint8, "
      "fp8_e4m3_channel, fp8_e4m3_tensor, fp8_e4m3_block, fp8_e4m3_token, fp8_e5m2_channel, "
      "fp8_e5m2_tensor, fp8_e5m2_block, fp8_e5m2_token, int8_channel, int8_token, int4_g32, int4_g64, "
      "int4_g128, int4_g32_asym, int4_g64_asym, int4_g128_asym, nf4, nf4_double, bf16, fp16");
}

TEST_CASE("stored bytes are those of the published layouts") {
  REQUIRE(stored_bytes<nvfp4>(704, 256) == 704 * 128 + 704 * 16 + 4);
  REQUIRE(stored_bytes<mxfp4>(704, 256) == 704 * 128 + 704 * 8);
  REQUIRE(stored_bytes<mxfp8_e4m3>(704, 256) == 704 * 256 + 704 * 8);
  REQUIRE(stored_bytes<fp8_e4m3_channel>(704, 256) == 704 * 256 + 704 * 2);
  REQUIRE(stored_bytes<fp8_e4m3_tensor>(704, 256) == 704 * 256 + 2);
  REQUIRE(stored_bytes<fp8_e4m3_block>(704, 256) == 704 * 256 + 6 * 2 * 2);
  REQUIRE(stored_bytes<bf16>(704, 256) == 704 * 256 * 2);
  REQUIRE(stored_bytes<mxfp6_e2m3>(704, 256) == 704 * 192 + 704 * 8);
  REQUIRE(stored_bytes<int8_channel>(704, 256) == 704 * 256 + 704 * 2);
  REQUIRE(stored_bytes<int8_token>(704, 256) == 704 * 256 + 704 * 4);
  REQUIRE(stored_bytes<int4_g128>(704, 256) == 704 * 128 + 704 * 2 * 2);
  REQUIRE(stored_bytes<int4_g128_asym>(705, 256) == 705 * 128 + 705 * 2 * 2 + 89 * 2 * 4);
  REQUIRE(stored_bytes<nf4>(704, 256) == 704 * 128 + 704 * 4 * 4);
  REQUIRE(stored_bytes<nf4_double>(704, 256) == 704 * 128 + 704 * 4 + (1 + 11) * 4);
}

// Must not compile, and must say why in terms of the concept.
#include "prismaquant/codec/codec.hpp"

struct nearly_a_format {
  static constexpr char const* name = "nearly";
};

int main() { prismaquant::encode<nearly_a_format>(prismaquant::matrix_view<float const>{}); }

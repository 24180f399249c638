#include "prismaquant/prismaquant.hpp"

prismaquant::quantized_matrix<prismaquant::nvfp4> encode_elsewhere(prismaquant::matrix_view<float const> weights);

// Two translation units that include everything link into one program and agree.
int main() {
  float values[32];
  for (int i = 0; i < 32; ++i) values[i] = static_cast<float>(i) / 8.0f - 2.0f;
  prismaquant::matrix_view<float const> const weights{values, 1, 32, 32, 1};
  return prismaquant::encode<prismaquant::nvfp4>(weights).codes() == encode_elsewhere(weights).codes() ? 0 : 1;
}

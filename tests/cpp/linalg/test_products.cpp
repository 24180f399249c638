#include <array>

#include "linalg/reference.hpp"
#include "support/catch.hpp"

using namespace prismaquant;
using namespace prismaquant::test;

TEST_CASE("add_product agrees with plain loops in every combination of layouts") {
  random_matrix const a(7, 37, 1, 1.0f), b(37, 18, 2, 1.0f), c(7, 18, 3, 1.0f);
  plain expected = product(plain(a.view()), plain(b.view()));
  for (std::size_t i = 0; i < expected.elements.size(); ++i) {
    expected.elements[i] = static_cast<double>(c.elements[i]) - 0.5 * expected.elements[i];
  }
  for (auto const& [name, linalg] : backends()) {
    for (layout how_a : layouts) {
      for (layout how_b : layouts) {
        for (layout how_c : layouts) {
          laid_out const out(c.view(), how_c);
          std::size_t const fillers = out.fillers();
          linalg.add_product(-0.5f, laid_out(a.view(), how_a).view(), laid_out(b.view(), how_b).view(), out.view());
          INFO(name << ", layouts " << static_cast<int>(how_a) << static_cast<int>(how_b) << static_cast<int>(how_c));
          REQUIRE(largest_difference(plain(out.view()), expected) < 1e-4);
          REQUIRE(out.fillers() == fillers);
        }
      }
    }
  }
}

TEST_CASE("products of single rows and columns") {
  for (auto const& [name, linalg] : backends()) {
    for (auto [m, k, n] : {std::array<std::size_t, 3>{1, 1, 1}, {1, 9, 5}, {5, 9, 1}, {5, 1, 4}, {1, 9, 1}}) {
      random_matrix const a(m, k, 1, 1.0f), b(k, n, 2, 1.0f);
      std::vector<float> out(m * n);
      linalg.add_product(1.0f, a.view(), b.view(), {out.data(), m, n, static_cast<std::ptrdiff_t>(n), 1});
      INFO(name << ": " << m << " x " << k << " x " << n);
      matrix_view<float const> const result{out.data(), m, n, static_cast<std::ptrdiff_t>(n), 1};
      REQUIRE(largest_difference(plain(result), product(plain(a.view()), plain(b.view()))) < 1e-5);
    }
  }
}

TEST_CASE("a broadcast row can be a factor") {
  float const row[3] = {1, 2, 3};
  matrix_view<float const> const repeated{row, 4, 3, 0, 1};
  random_matrix const b(3, 2, 1, 1.0f);
  for (auto const& [name, linalg] : backends()) {
    float out[8] = {};
    linalg.add_product(1.0f, repeated, b.view(), {out, 4, 2, 2, 1});
    INFO(name);
    REQUIRE(largest_difference(plain(matrix_view<float const>{out, 4, 2, 2, 1}),
                               product(plain(repeated), plain(b.view()))) < 1e-6);
  }
}

TEST_CASE("add_gram adds x'x to both triangles, exactly symmetric") {
  for (auto const& [name, linalg] : backends()) {
    for (std::size_t n : {1, 2, 31, 70}) {
      random_matrix const x(45, n, 4, 1.0f), h = gram_of(random_matrix(9, n, 5, 1.0f), 0.0f);
      plain expected = product(transpose(plain(x.view())), plain(x.view()));
      for (std::size_t i = 0; i < expected.elements.size(); ++i) {
        expected.elements[i] += static_cast<double>(h.elements[i]);
      }
      for (layout how_x : layouts) {
        for (layout how_h : layouts) {
          laid_out const out(h.view(), how_h);
          std::size_t const fillers = out.fillers();
          linalg.add_gram(laid_out(x.view(), how_x).view(), out.view());
          INFO(name << ", " << n << " columns, layouts " << static_cast<int>(how_x) << static_cast<int>(how_h));
          plain const result(out.view());
          REQUIRE(largest_difference(result, expected) < 1e-3);
          REQUIRE(largest_difference(result, transpose(result)) == 0.0);
          REQUIRE(out.fillers() == fillers);
        }
      }
    }
  }
}

TEST_CASE("nothing is done to empty matrices") {
  for (auto const& [name, linalg] : backends()) {
    INFO(name);
    float h = 2.0f;
    matrix_view<float> const empty{&h, 0, 0, 1, 1}, one{&h, 1, 1, 1, 1};
    REQUIRE(linalg.factor_inverse(empty));
    REQUIRE(linalg.invert_upper(empty));
    linalg.add_gram({&h, 0, 1, 1, 1}, one);
    linalg.add_product(1.0f, {&h, 1, 0, 1, 1}, {&h, 0, 1, 1, 1}, one);
    REQUIRE(h == 2.0f);
  }
}

TEST_CASE("wrong shapes are refused by name") {
  std::vector<float> memory(12);
  auto const shaped = [&](std::size_t rows, std::size_t columns) {
    return matrix_view<float>{memory.data(), rows, columns, static_cast<std::ptrdiff_t>(columns), 1};
  };
  eigen_backend const linalg;
  REQUIRE_THROWS_AS(linalg.factor_inverse(shaped(2, 3)), shape_error);
  REQUIRE_THROWS_WITH(linalg.factor_inverse(shaped(2, 3)), "matrix 'h' is 2 x 3, needed is 2 x 2");
  REQUIRE_THROWS_WITH(linalg.invert_upper(shaped(2, 3)), "matrix 'u' is 2 x 3, needed is 2 x 2");
  REQUIRE_THROWS_WITH(linalg.add_gram(shaped(4, 3), shaped(2, 3)), "matrix 'h' is 2 x 3, needed is 3 x 3");
  REQUIRE_THROWS_WITH(linalg.add_product(1.0f, shaped(2, 3), shaped(2, 2), shaped(2, 2)),
                      "matrix 'b' is 2 x 2, needed is 3 x 2");
  REQUIRE_THROWS_WITH(linalg.add_product(1.0f, shaped(2, 3), shaped(3, 2), shaped(2, 1)),
                      "matrix 'c' is 2 x 1, needed is 2 x 2");
}

// Scores PNG files with an exported OpenVINO file; of OpenVINO and libpng alone.
//
//     score model.xml picture.png ...

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <openvino/openvino.hpp>
#include <png.h>

struct Window {
    double low, high;
};

// A PNG of 8 or 16 bits as the graph takes it: (1, 3, height, width) in [0, 1].
ov::Tensor read(const std::string& path, Window of_16_bits) {
    std::unique_ptr<std::FILE, decltype(&std::fclose)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
    if (!file) throw std::runtime_error("cannot open " + path);
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, file.get());
    const int as_rgb = PNG_TRANSFORM_EXPAND | PNG_TRANSFORM_GRAY_TO_RGB | PNG_TRANSFORM_STRIP_ALPHA;
    png_read_png(png, info, as_rgb | PNG_TRANSFORM_SWAP_ENDIAN, nullptr);

    const size_t height = png_get_image_height(png, info), width = png_get_image_width(png, info);
    const bool deep = png_get_bit_depth(png, info) == 16;
    const Window window = deep ? of_16_bits : Window{0, 255};
    if (window.low == window.high)
        throw std::runtime_error(path + " has 16 bits, of which the model does not say what they mean");
    png_bytepp rows = png_get_rows(png, info);
    ov::Tensor image(ov::element::f32, {1, 3, height, width});
    float* pixel = image.data<float>();
    for (size_t channel = 0; channel < 3; ++channel)
        for (size_t y = 0; y < height; ++y)
            for (size_t x = channel; x < 3 * width; x += 3) {
                const double value = deep ? reinterpret_cast<png_uint_16p>(rows[y])[x] : rows[y][x];
                const double placed = (value - window.low) / (window.high - window.low);
                *pixel++ = static_cast<float>(std::clamp(placed, 0.0, 1.0));
            }
    png_destroy_read_struct(&png, &info, nullptr);
    return image;
}

int run(int count, char** words) {
    if (count < 3) throw std::runtime_error("usage: score model.xml picture.png ...");
    ov::Core core;
    const auto model = core.read_model(words[1]);
    const auto says = [&](const char* key) {
        return model->get_rt_info<std::string>("anomalib_medclip", key);
    };
    if (says("inside").find("resize") == std::string::npos)
        throw std::runtime_error("the model takes images of one size; export it with any_size");
    Window window{0, 0};
    std::sscanf(says("intensity_window").c_str(), "[%lf, %lf]", &window.low, &window.high);
    const std::string threshold = says("image_threshold");

    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = compiled.create_infer_request();
    std::cout.precision(9);
    for (int index = 2; index < count; ++index) {
        request.set_input_tensor(read(words[index], window));
        request.infer();
        const float score = request.get_tensor("pred_score").data<float>()[0];
        std::cout << words[index] << " " << score << " ";
        if (threshold != "null") std::cout << (score > std::stod(threshold));
        std::cout << "\n";
    }
    return 0;
}

int main(int count, char** words) try {
    return run(count, words);
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}

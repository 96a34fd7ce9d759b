//! Compiles the settings of malloc, which have to be made in C.

fn main() {
    println!("cargo:rerun-if-changed=build/malloc.c");
    let objects = cc::Build::new().file("build/malloc.c").compile_intermediates();
    for object in objects {
        // Nothing refers to it, so a linker would leave it out of a library.
        println!("cargo:rustc-link-arg-bins={}", object.display());
    }
}

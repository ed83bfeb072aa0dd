//! `cargo xtask setup`: what some builds need beyond Rust.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, bail};
use xshell::{Shell, cmd};

/// What to set up.
#[derive(Debug, clap::Subcommand)]
pub enum Setup {
    /// LLVM for builds with the feature `cuda` or `cuda-cpp`, from the packages of Debian or Ubuntu, for machines that
    /// cannot download the bundle that those builds fetch by themselves.
    Llvm,
}

/// The major version of the packages. CubeCL's bundle is LLVM 23, which no distribution has yet. LLVM 22 links in its
/// place, which is enough for `cuda-cpp`: there NVRTC generates the code and LLVM is never called.
const LLVM: &str = "22";

/// Puts the distribution's LLVM where the build script of `tracel-llvm-bundler` looks for its download.
pub fn llvm(shell: &Shell) -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(
            "only packages of Debian and Ubuntu are known here; elsewhere the build downloads LLVM by itself"
        );
    }
    let lock = shell.read_file("Cargo.lock")?;
    let prefix = bundle_folder(&lock)?;
    let installed = prefix.join(".tracel-llvm-installed");
    if installed.exists() {
        println!("already provided: {}", prefix.display());
        return Ok(());
    }
    let llvm = PathBuf::from(format!("/usr/lib/llvm-{LLVM}"));
    let needed = [
        llvm.join("bin/llvm-config"),
        llvm.join("lib/libPolly.a"),
        "/usr/include/zstd.h".into(),
        "/usr/bin/c++".into(),
    ];
    if needed.iter().any(|path| !path.exists()) {
        install_packages(shell)?;
    }
    link(&llvm, &prefix)?;
    let config = prefix.join("bin/llvm-config");
    let version = cmd!(shell, "{config} --link-static --version").read()?;
    cmd!(shell, "{config} --link-static --libs")
        .ignore_stdout()
        .run()?;
    fs::write(installed, "")?;
    println!("provided LLVM {version}: {}", prefix.display());
    println!(
        "use it with the feature `cuda-cpp`; with `cuda` alone LLVM generates the kernels, for which the bundle itself is needed"
    );
    Ok(())
}

/// The folder of the bundle, of the version in the lock file.
fn bundle_folder(lock: &str) -> anyhow::Result<PathBuf> {
    let lock: toml::Table = lock.parse().context("Cargo.lock")?;
    let packages = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .context("Cargo.lock lists no packages")?;
    let bundler = packages
        .iter()
        .find(|package| package["name"].as_str() == Some("tracel-llvm-bundler"));
    let version = bundler
        .and_then(|package| package["version"].as_str())
        .context("Cargo.lock has no tracel-llvm-bundler")?;
    let data = match env::var_os("XDG_DATA_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => env::home_dir()
            .context("no home directory")?
            .join(".local/share"),
    };
    Ok(data.join("tracel").join(format!("tracel-llvm-{version}")))
}

fn install_packages(shell: &Shell) -> anyhow::Result<()> {
    let packages = [
        format!("llvm-{LLVM}-dev"),
        format!("libpolly-{LLVM}-dev"),
        "libzstd-dev".to_owned(),
        "zlib1g-dev".to_owned(),
        "g++".to_owned(),
    ];
    if cmd!(shell, "apt-get --version")
        .quiet()
        .ignore_stdout()
        .run()
        .is_err()
    {
        bail!(
            "there is no apt-get here: install what Debian calls {} by hand",
            packages.join(" ")
        );
    }
    let root = cmd!(shell, "id -u").quiet().read()? == "0";
    let sudo: &[&str] = if root { &[] } else { &["sudo"] };
    let apt_get = |arguments: &[&str]| {
        let mut command: Vec<&str> = [sudo, &["apt-get"], arguments].concat();
        let program = command.remove(0);
        cmd!(shell, "{program} {command...}").run()
    };
    apt_get(&["update", "-qq"])?;
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    let install = [
        &["install", "-y", "-qq", "--no-install-recommends"],
        &packages[..],
    ]
    .concat();
    apt_get(&install).with_context(|| format!("does this distribution have llvm-{LLVM}-dev? https://apt.llvm.org has it for older ones"))
}

#[cfg(unix)]
fn link(llvm: &Path, prefix: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let bin = prefix.join("bin");
    fs::create_dir_all(&bin)?;
    for folder in ["include", "lib"] {
        let link = prefix.join(folder);
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(llvm.join(folder), link)?;
    }
    let config = bin.join("llvm-config");
    fs::write(&config, config_script(llvm))?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> anyhow::Result<()> {
    unreachable!("refused above")
}

/// Debian's `llvm-config`, except that it names fewer system libraries: those it lists for static linking include some
/// by path and some that nothing here uses.
fn config_script(llvm: &Path) -> String {
    let config = llvm.join("bin/llvm-config");
    format!(
        "#!/bin/sh\n\
         for argument in \"$@\"; do\n    \
             if [ \"$argument\" = --system-libs ]; then echo \"-lrt -ldl -lm -lz -lzstd\"; exit; fi\n\
         done\n\
         exec {} \"$@\"\n",
        config.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_of_the_locked_version() {
        let lock = "[[package]]\nname = \"tracel-llvm-bundler\"\nversion = \"1.2.3-4\"\n";
        let folder = bundle_folder(lock).unwrap();
        assert!(
            folder.ends_with("tracel/tracel-llvm-1.2.3-4"),
            "{}",
            folder.display()
        );
    }

    #[test]
    fn a_lock_file_without_the_bundler_is_an_error() {
        let error =
            bundle_folder("[[package]]\nname = \"burn\"\nversion = \"0.22.1\"\n").unwrap_err();
        assert!(error.to_string().contains("tracel-llvm-bundler"), "{error}");
    }
}

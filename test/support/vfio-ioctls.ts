import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { executableDirectory } from './compiler.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/vfio-ioctls.mjs', import.meta.url));
const SOURCE = fileURLToPath(new URL('../real/vfio-ioctls/main.rs', import.meta.url));

const { status, stdout, stderr } = spawnSync(process.execPath, [SCRIPT, '--cached'], { encoding: 'utf8' });
const home = stdout.trim();

/** Why the client cannot be built here. No package has vfio-ioctls, and not every machine reaches GitHub, or has a compiler of Rust. */
export const missingClient: string | undefined = status === 0 ? missingCargo() : stderr.trim();

function missingCargo(): string | undefined {
  const { error, status: code } = spawnSync('cargo', ['--version'], { stdio: 'ignore' });
  return error?.message ?? (code === 0 ? undefined : `cargo --version: exit code ${code}`);
}

const manifest = `[package]
name = "client"
version = "0.0.0"
edition = "2021"

[[bin]]
name = "client"
path = "main.rs"

[dependencies]
libc = "0.2"
log = "0.4"
vfio-bindings = { path = "${home}/vfio-bindings" }
vfio-ioctls = { path = "${home}/vfio-ioctls" }
vm-memory = { version = "0.16", features = ["backend-mmap"] }
vmm-sys-util = "0.12"

[patch.crates-io]
winapi = { path = "${home}/winapi" }
`;

const config = `[source.crates-io]
replace-with = "debian"

[source.debian]
directory = "${home}/registry"

[net]
offline = true
`;

/** Builds the client, as far as that has not been done, and returns its path. */
export function vfioIoctlsClient(): string {
  const directory = join(executableDirectory(), 'vfio-ioctls');
  mkdirSync(join(directory, '.cargo'), { recursive: true });
  writeAnew(join(directory, 'Cargo.toml'), manifest);
  writeAnew(join(directory, '.cargo/config.toml'), config);
  copyFileSync(SOURCE, join(directory, 'main.rs'));
  const { status: code, stderr: why } = spawnSync('cargo', ['build', '--quiet', '--release'], {
    cwd: directory,
    encoding: 'utf8',
    env: { ...process.env, CARGO_TARGET_DIR: join(directory, 'target'), RUSTFLAGS: '' },
  });
  if (code !== 0) throw new Error(`cargo build: exit code ${code}\n${why}`);
  return join(directory, 'target/release/client');
}

function writeAnew(path: string, text: string): void {
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) writeFileSync(path, text);
}

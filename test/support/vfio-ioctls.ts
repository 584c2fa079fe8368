import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { executableDirectory } from './compiler.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/vfio-ioctls.mjs', import.meta.url));
/** The client, and the crates that Debian does not have. */
const SOURCES = fileURLToPath(new URL('../real/vfio-ioctls', import.meta.url));

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
path = "${SOURCES}/main.rs"

[dependencies]
iommufd-ioctls = "0.1"
kvm-bindings = "0.10"
kvm-ioctls = "0.19"
libc = "0.2"
log = "0.4"
vfio-bindings = { path = "${home}/vfio-bindings" }
vfio-ioctls = { path = "${home}/vfio-ioctls", features = ["kvm", "vfio_cdev"] }
vm-memory = { version = "0.16", features = ["backend-mmap"] }
vmm-sys-util = "0.12"

[patch.crates-io]
iommufd-bindings = { path = "iommufd-bindings" }
iommufd-ioctls = { path = "iommufd-ioctls" }
winapi = { path = "${home}/winapi" }
`;

function iommufdCrate(name: string, dependencies: readonly string[]): string {
  const lines = [
    '[package]',
    `name = "${name}"`,
    'version = "0.1.0"',
    'edition = "2021"',
    '[lib]',
    `path = "${SOURCES}/${name.replace('-', '_')}.rs"`,
    '[dependencies]',
    ...dependencies,
  ];
  return `${lines.join('\n')}\n`;
}

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
  const files = {
    'Cargo.toml': manifest,
    '.cargo/config.toml': config,
    'iommufd-bindings/Cargo.toml': iommufdCrate('iommufd-bindings', []),
    'iommufd-ioctls/Cargo.toml': iommufdCrate('iommufd-ioctls', [
      'iommufd-bindings = { path = "../iommufd-bindings" }',
      'libc = "0.2"',
    ]),
  };
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeAnew(join(directory, name), text);
  }
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

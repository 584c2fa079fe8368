import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readProduct } from '../../packaging/product.ts';
import { makeTarball } from '../../packaging/tarball.ts';
import { ARCHIVES } from '../events.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

/** What the host shares with the guest, in a directory of one run. */
export class Share implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'vfio-shim-lab-'));
  /**
   * The project as the guest sees it: the built package with what it needs at run time, and the compiled jobs where their
   * imports expect them. A copy, so that nothing changes under a running guest.
   */
  readonly project = join(this.directory, 'project');
  readonly #remove = (): void => rmSync(this.directory, { recursive: true, force: true });

  constructor() {
    process.once('exit', this.#remove);
    copyDist(join(this.project, 'dist'));
    for (const name of ['package.json', 'test/vectors']) {
      cpSync(join(PROJECT, name), join(this.project, name), { recursive: true });
    }
    copyDependencies('package.json', this.project);
    mkdirSync(join(this.project, '.cache')); // a guest may mount something there
    const options = ['-p', join(PROJECT, 'lab/tsconfig.json'), '--outDir', this.project];
    execFileSync(join(PROJECT, 'node_modules/.bin/tsc'), options, { stdio: ['ignore', 2, 2] });
    const program = ['-static', '-pthread', '-o', join(this.project, 'save-all'), join(PROJECT, 'bench/c/save-all.c')];
    execFileSync('gcc', ['-O2', '-std=gnu11', ...program], { stdio: ['ignore', 2, 2] });
  }

  /** What a guest of aarch64 has besides: the project's tests, with their sources, and the archive with a Node of its own. */
  async addForArm64(): Promise<void> {
    const archives = join(this.project, ARCHIVES);
    if (existsSync(archives)) return;
    for (const name of ['src', 'test', 'tools', 'bench/c', 'vitest.config.ts', 'tsconfig.json']) {
      cpSync(join(PROJECT, name), join(this.project, name), { recursive: true });
    }
    await makeTarball(archives, 'arm64', readProduct());
  }

  /** A new directory for the results of one boot. */
  results(boot: number): string {
    const directory = join(this.directory, `results-${boot}`);
    mkdirSync(directory);
    return directory;
  }

  [Symbol.dispose](): void {
    process.off('exit', this.#remove);
    this.#remove();
  }
}

/** A build may put another dist/ into its place meanwhile. */
function copyDist(target: string): void {
  const dist = join(PROJECT, 'dist');
  for (let attempt = 1; ; attempt++) {
    const identity = (): string | undefined => {
      const found = statSync(dist, { bigint: true, throwIfNoEntry: false });
      return found === undefined ? undefined : `${found.ino} ${found.ctimeNs}`;
    };
    const before = identity();
    try {
      cpSync(dist, target, { recursive: true });
      if (identity() === before) return;
    } catch (error) {
      if (attempt === 5) throw error;
    }
    rmSync(target, { recursive: true, force: true });
  }
}

interface PackageFile {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Copies what a package depends on, and so on. Optional ones, such as another machine's binaries, may not be installed. */
function copyDependencies(packageFile: string, target: string): void {
  const file = JSON.parse(readFileSync(join(PROJECT, packageFile), 'utf8')) as PackageFile;
  for (const name of Object.keys({ ...file.dependencies, ...file.optionalDependencies })) {
    const path = join('node_modules', name);
    const required = name in (file.dependencies ?? {});
    if (existsSync(join(target, path)) || (!required && !existsSync(join(PROJECT, path)))) continue;
    cpSync(join(PROJECT, path), join(target, path), { recursive: true });
    copyDependencies(join(path, 'package.json'), target);
  }
}

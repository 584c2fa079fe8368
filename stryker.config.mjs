/**
 * Mutation testing of the rooms whose tests start no process: `npm run test:mutation`, or a part of it with
 * `-- --mutate 'src/kernel/*.ts'`. What was found before is kept in `.cache/mutation`, and only what has changed is run again.
 */
export default {
  testRunner: 'vitest',
  vitest: { configFile: 'vitest.mutation.config.ts' },
  plugins: ['@stryker-mutator/vitest-runner'],
  mutate: ['src/{bridge,v1,v2,vfio,kernel}/**/*.ts', '!src/**/index.ts'],
  // Strings are messages, which tests do not repeat, and codes and errnos, which the compiler checks.
  mutator: { excludedMutations: ['StringLiteral'] },
  // What runs when a module is loaded (tables, structs) would cost a run of all tests for each mutant.
  ignoreStatic: true,
  // Only src/ is instrumented, and types are stripped: no tsconfig is to be rewritten.
  tsconfigFile: 'none',
  ignorePatterns: ['/dist', '/lab', '/bench', '/docs', '/examples', '/coverage', '/.cache', '/reports'],
  concurrency: 2,
  timeoutMS: 10000,
  incremental: true,
  incrementalFile: '.cache/mutation/incremental.json',
  tempDirName: '.cache/mutation/sandbox',
  reporters: ['clear-text', 'progress-append-only', 'html', 'json'],
  htmlReporter: { fileName: '.cache/mutation/report.html' },
  jsonReporter: { fileName: '.cache/mutation/report.json' },
  clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
  thresholds: { high: 95, low: 90, break: 90 },
};

// A plugin of typedoc: the constants and structs of src/abi have the kernel's names, and the kernel's headers document them. What we have
// said of the first of a group is not repeated for each.
import { Converter, ReflectionKind } from 'typedoc';

/** @param {import('typedoc').Application} app */
export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    const names = project
      .getReflectionsByKind(ReflectionKind.Variable)
      .filter((variable) => !variable.hasComment() && variable.sources?.[0]?.fullFileName.includes('/src/abi/'))
      .map((variable) => variable.getFullName());
    app.options.setValue('intentionallyNotDocumented', names);
  });
}

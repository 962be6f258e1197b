// What the client declares about an answer, held against the answer itself. The TypeScript compiler
// reads the declarations that the package ships; nothing here repeats them.
//
// A generated client does not check what it receives: a field that is missing, or of another type,
// is only found where somebody uses it. This walks each value beside its declared type instead.

import { createRequire } from "node:module";
import ts from "typescript";

const require = createRequire(import.meta.url);

// Text whose form the declarations give in words, by the end of the property's name.
const FORMS = [
  // "Responses emit up to 6" decimals.
  [/_dollars$/, /^\d+\.\d{1,6}$/],
  // "Responses always emit 2 decimals."
  [/_fp$/, /^-?\d+\.\d{2}$/],
  [/_(time|ts|datetime|date)$/, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$/],
];
// The same for properties of one interface.
const FORMS_OF = {
  // "Eastern Time format HH:MM".
  DailySchedule: [[/_time$/, /^\d\d:\d\d$/]],
  PriceRange: [[/./, /^\d+\.\d{1,6}$/]],
};

export class Declarations {
  #checker;
  #exports;
  // "Market.ticker" -> how many values of that property were compared.
  compared = new Map();
  // "Event.available_on_brokers": sent, but declared nowhere.
  undeclared = new Set();
  problems = [];

  // Reads the declarations of an installed package.
  constructor(name) {
    const root = require.resolve(name).replace(/\.js$/, ".d.ts");
    const program = ts.createProgram([root], { strict: true, skipLibCheck: true, types: [] });
    this.#checker = program.getTypeChecker();
    const source = program.getSourceFile(root);
    this.#exports = this.#checker.getExportsOfModule(this.#checker.getSymbolAtLocation(source));
  }

  // How many properties of an interface must be there, and how many may be.
  counts(name) {
    const properties = this.#checker.getPropertiesOfType(this.#type(name));
    const optional = properties.filter((property) => property.flags & ts.SymbolFlags.Optional);
    return { required: properties.length - optional.length, optional: optional.length };
  }

  // Compares a value with an exported interface; what differs is added to `problems`.
  compare(name, value) {
    this.#walk(this.#type(name), value, name, name);
  }

  #type(name) {
    const symbol = this.#exports.find((candidate) => candidate.name === name);
    if (!symbol) throw new Error(`the client declares no ${name}`);
    return this.#checker.getDeclaredTypeOfSymbol(symbol);
  }

  #wrong(path, type, value) {
    const shown = JSON.stringify(value)?.slice(0, 80);
    this.problems.push(`${path}: ${shown} is not ${this.#checker.typeToString(type)}`);
  }

  // Whether a value that is no object or array fits. Objects and arrays are walked by the caller.
  #fits(type, value) {
    const flags = type.flags;
    if (flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown)) return true;
    if (type.isUnion()) return type.types.some((member) => this.#fits(member, value));
    if (flags & ts.TypeFlags.StringLiteral) return value === type.value;
    if (flags & ts.TypeFlags.NumberLiteral) return value === type.value;
    if (flags & ts.TypeFlags.BooleanLiteral) {
      return String(value) === this.#checker.typeToString(type);
    }
    if (flags & ts.TypeFlags.String) return typeof value === "string";
    if (flags & ts.TypeFlags.Number) return Number.isFinite(value);
    if (flags & ts.TypeFlags.Null) return value === null;
    if (flags & ts.TypeFlags.Undefined) return value === undefined;
    return false;
  }

  #walk(type, value, path, owner) {
    if (value === null || typeof value !== "object") {
      if (!this.#fits(type, value)) this.#wrong(path, type, value);
      return;
    }
    const members = type.isUnion() ? type.types : [type];
    if (Array.isArray(value)) {
      const array = members.find((member) => this.#checker.isArrayType(member));
      if (!array) return this.#wrong(path, type, value);
      const [element] = this.#checker.getTypeArguments(array);
      value.forEach((item, at) => this.#walk(element, item, `${path}[${at}]`, owner));
      return;
    }
    // `object`: anything between braces.
    if (members.some((member) => member.flags & ts.TypeFlags.NonPrimitive)) return;
    const shape = members.find(
      (member) => member.flags & ts.TypeFlags.Object && !this.#checker.isArrayType(member),
    );
    if (!shape) return this.#wrong(path, type, value);
    this.#properties(shape, value, path);
  }

  #properties(shape, value, path) {
    const owner = shape.symbol.name;
    const declared = this.#checker.getPropertiesOfType(shape);
    for (const property of declared) {
      const name = property.name;
      const inner = value[name];
      if (inner === undefined) {
        if (!(property.flags & ts.SymbolFlags.Optional)) {
          this.problems.push(`${path}.${name}: missing`);
        }
        continue;
      }
      const key = `${owner}.${name}`;
      this.compared.set(key, (this.compared.get(key) ?? 0) + 1);
      this.#walk(this.#checker.getTypeOfSymbol(property), inner, `${path}.${name}`, owner);
      if (typeof inner === "string") this.#form(owner, name, inner, path);
    }
    for (const name of Object.keys(value)) {
      if (!declared.some((property) => property.name === name)) {
        this.undeclared.add(`${owner}.${name}`);
      }
    }
  }

  #form(owner, name, text, path) {
    const rule = (FORMS_OF[owner] ?? FORMS).find(([names]) => names.test(name));
    if (rule && !rule[1].test(text)) {
      this.problems.push(`${path}.${name}: ${JSON.stringify(text)} is not of the form ${rule[1]}`);
    }
  }
}

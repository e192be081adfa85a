// A proposal. Of Dropout's next version this is what changes; the version before goes to old.cc.

ONNX_OPERATOR_SET_SCHEMA(
    Dropout,
    29,
    OpSchema()
        .SetDoc(GET_OP_DOC_STR(std::string(Dropout_ver29_doc) + GenerateOptionalArgumentsDoc()))
        .Attr("seed", "Seed of the generator; if none is given, one is made up. A defined generator requires it: its 64-bit key.", AttributeProto::INT, OPTIONAL_VALUE)
        .Attr("axes", "Axes along which one entry of the mask is shared. Negative values count dimensions from the back. Default: none, each element has an entry of its own.", AttributeProto::INTS, OPTIONAL_VALUE)
        .Attr("generator", "\"unspecified\": the runtime's own. \"philox4x32_10\": as RandomUniform defines it.", AttributeProto::STRING, std::string("unspecified"))
        .Input(0, "data", "The input data as Tensor.", "T")
        .Input(1, "ratio", "The ratio of random dropout, in [0, 1]. Scalar. Default: 0.5.", "T1", OpSchema::Optional)
        .Input(2, "training_mode", "If false, output is data and mask is all true. Scalar. Default: false.", "T2", OpSchema::Optional)
        .Input(3, "offset", "Which draw of a defined generator. Scalar. Default: 0.", "T3", OpSchema::Optional)
        .Output(0, "output", "The output.", "T")
        .Output(1, "mask", "The output mask: data's shape with `axes` set to 1; true where kept.", "T2", OpSchema::Optional)
        .TypeConstraint("T", {"tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)", "tensor(float8e4m3fn)", "tensor(float8e4m3fnuz)", "tensor(float8e5m2)", "tensor(float8e5m2fnuz)"}, "Constrain input and output types to float tensors.")
        .TypeConstraint("T1", {"tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)", "tensor(float8e4m3fn)", "tensor(float8e4m3fnuz)", "tensor(float8e5m2)", "tensor(float8e5m2fnuz)"}, "Constrain input 'ratio' types to float tensors.")
        .TypeConstraint("T2", {"tensor(bool)"}, "Constrain 'training_mode' and 'mask' types to boolean tensors.")
        .TypeConstraint("T3", {"tensor(int64)"}, "Constrain 'offset' to int64.")
        // With a defined generator, all inputs, and a type that Mul has. Without axes the builder leaves out ReduceMax, and writes defaults as constants.
        .FunctionBody(R"ONNX(
        {
          shared = Constant <value_ints : ints = @axes> ()
          thin = ReduceMax <keepdims = 1> (data, shared)
          numbers = RandomUniformLike <dtype = 1, generator : string = @generator, seed_int64 : int = @seed> (thin, offset)
          limit = Cast <to = 1> (ratio)
          below = Less (numbers, limit)
          dropped = And (below, training_mode)
          mask = Not (dropped)
          one = Constant <value = double {1.0}> ()
          wide = Cast <to = 11> (limit)
          left = Sub (one, wide)
          scale = Div (one, left)
          chosen = Where (training_mode, scale, one)
          factor = CastLike (chosen, data)
          scaled = Mul (data, factor)
          nothing = Constant <value_float = 0.0> ()
          zero = CastLike (nothing, data)
          output = Where (dropped, zero, scaled)
        }
        )ONNX", 29)
        .TypeAndShapeInferenceFunction(DropoutWithAxesShapeInference));

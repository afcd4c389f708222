from flask import Flask, jsonify, request

app = Flask(__name__)
app.config["JSON_SORT_KEYS"] = False


@app.route("/invoices", methods=["GET", "POST"])
def invoices():
    if request.method == "POST":
        return jsonify(request.get_json()), 201
    return jsonify([])


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=5000, debug=True)
